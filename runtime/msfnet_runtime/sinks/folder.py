"""One file per frame in a folder, with a manifest that is whole at any time."""

from __future__ import annotations

import itertools
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.files import atomic_path, disk_full, refuse_filled
from msfnet_runtime.sink import SinkBase
from msfnet_runtime.sinks.options import SinkOptions
from msfnet_runtime.spec import ModelSpec
from msfnet_runtime.types import DepthMap, Frame

MANIFEST = "manifest.jsonl"

SCHEMA_VERSION = 2


class FolderSink(SinkBase, ABC):
    """Files named after their frames or their indices, and ``manifest.jsonl``.

    Frames of several drives or rooms lie in a folder for each, as the frames themselves do.

    The manifest's first line is a JSON object with the encoding and the model's spec; each
    further line is one frame: its file, index, timestamp, size and intrinsics. Every file is
    renamed into place when it is whole, and its line follows: a run that is killed leaves all
    frames that were finished, and a manifest of them.

    Raises:
        MsfnetError: on entering, where the folder exists and holds something, or cannot be made.
    """

    suffix: ClassVar[str]

    def __init__(self, folder: Path, spec: ModelSpec, options: SinkOptions) -> None:
        self._folder = folder
        self._spec = spec
        self._options = options
        self._written = 0

    def write(self, frame: Frame, depth: DepthMap) -> None:
        """Write one file and its line.

        Raises:
            MsfnetError: the disk is full, or the like; the frames before are kept.
        """
        frame = self._options.with_camera(frame)
        content = self.encode(frame, depth)
        name = self._file_name(frame)
        height, width = depth.values.shape
        line = {
            "file": name,
            "index": depth.index,
            "timestamp_s": depth.timestamp_s,
            "width": width,
            "height": height,
            "intrinsics": asdict(frame.intrinsics) if frame.intrinsics else None,
        }
        try:
            with atomic_path(self._folder / name) as partial:
                partial.write_bytes(content)
            self._append(line)
        except MsfnetError as error:
            kept = f"; the frames before it are kept: {self._written}" if self._written else ""
            raise MsfnetError(f"{error}{kept}") from None
        self._written += 1

    @abstractmethod
    def encode(self, frame: Frame, depth: DepthMap) -> bytes:
        """Return the content of a frame's file."""

    @abstractmethod
    def encoding(self) -> dict[str, Any]:
        """Return what the manifest says on how to read the files."""

    @contextmanager
    def _opened(self) -> Iterator[None]:
        if (self._folder / MANIFEST).exists():
            raise MsfnetError(
                f"{self._folder} holds frames of an earlier run, whole or cut off; name another "
                "folder to keep them, or remove it"
            )
        refuse_filled(self._folder)
        existed = self._folder.exists()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._manifest = (self._folder / MANIFEST).open("xb", buffering=0)
        except OSError as error:
            raise MsfnetError(
                f"cannot write {self._folder}: {error.strerror}; choose another path"
            ) from None
        try:
            with self._manifest:
                self._append(
                    {"schema_version": SCHEMA_VERSION}
                    | self.encoding()
                    | {"spec": json.loads(self._spec.to_json())}
                )
                yield
        finally:
            if not self._written:
                shutil.rmtree(self._folder, ignore_errors=True)
                if existed:
                    self._folder.mkdir()

    def _append(self, line: dict[str, Any]) -> None:
        """Write one whole line, or none of it."""
        place = self._manifest.tell()
        left = memoryview(json.dumps(line).encode() + b"\n")
        with disk_full(self._folder / MANIFEST):
            try:
                while left:
                    left = left[self._manifest.write(left) :]
            except OSError:
                self._manifest.truncate(place)
                raise

    def _file_name(self, frame: Frame) -> str:
        """Return a name no frame has taken, in the folder that the frame's own name has."""
        number = f"{frame.index:010d}"
        parts = [part for part in PurePosixPath(frame.name).parts if part not in ("/", "..")]
        stem = "/".join(parts) or number
        stems = itertools.chain(
            (stem, f"{stem}_{number}"), (f"{stem}_{number}_{n}" for n in itertools.count(2))
        )
        names = (f"{each}{self.suffix}" for each in stems)
        return next(name for name in names if not (self._folder / name).exists())
