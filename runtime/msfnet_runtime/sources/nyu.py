"""Reads NYU Depth V2 in DenseDepth's layout: CSV lists of ``image,depth`` paths.

Paths are relative to the root, the folder with ``data/``; lists are ``data/nyu2_train.csv`` and
others of that form.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from msfnet_runtime.errors import MsfnetError, NothingFoundError
from msfnet_runtime.sources.images import FileSource
from msfnet_runtime.sources.rgbd import Scene
from msfnet_runtime.text_lists import is_header, read_lines
from msfnet_runtime.types import CameraIntrinsics, Frame

INTRINSICS = CameraIntrinsics(518.8579, 519.4696, 325.5824, 253.7362, 640, 480)
"""The colour camera of the NYU Depth V2 toolbox (``camera_params.m``)."""

FRAME_RATE = 30.0

_OWN_LISTS = "nyu2_"
"""The names of DenseDepth's lists start so."""


def find_lists(path: Path) -> dict[str, Path]:
    """Return the lists of a data set by split (``train``, ``val``, ``test``).

    Raises:
        NothingFoundError: there is none.
    """
    lists = {
        file.stem.removeprefix(_OWN_LISTS): file
        for folder in (path / "data", path)
        for file in sorted(folder.glob(f"{_OWN_LISTS}*.csv"))
    }
    if not lists:
        raise NothingFoundError(
            f"{path} holds no NYU list; expected data/nyu2_train.csv or the like"
        )
    return lists


def read_list(file: Path, root: Path | None = None) -> list[tuple[Path, Path]]:
    """Return the (image, depth) paths of a list, whose rows start at the data's root.

    A first row that names the columns is left out.

    Args:
        file: the list: rows of ``image,depth``.
        root: the data's root. If None, that of DenseDepth's ``data/nyu2_*.csv`` is the folder that
            holds ``data/``; that of any other list is its own folder.

    Raises:
        MsfnetError: missing, empty, or a row that is not a pair.
    """
    if root is None:
        root = file.parent.parent if file.name.startswith(_OWN_LISTS) else file.parent
    pairs: list[tuple[Path, Path]] = []
    lines = read_lines(file)
    for place, (number, line) in enumerate(lines):
        try:
            row = [word.strip() for word in next(csv.reader([line]))]
        except csv.Error:
            row = []
        if place == 0 and len(lines) > 1 and len(row) == 2 and is_header(row):
            continue
        if len(row) != 2:
            raise MsfnetError(f"{file}, line {number}: not `image,depth`; correct the list")
        image, depth = (Path(os.path.normpath(root / word)) for word in row)
        pairs.append((image, depth))
    if not pairs:
        raise MsfnetError(f"{file} is empty; fill the list")
    return pairs


class NyuList(FileSource):
    """Yields the images of one list in order, named ``ROOM/IMAGE``, with their camera.

    That is NYU's for lists named ``nyu2_*.csv``, and that of ``camera.json`` beside any other.
    """

    fps = FRAME_RATE

    def __init__(self, path: Path, *, skip_bad: bool = False) -> None:
        """Open a CSV list, or the first of a data set's test, validation and training lists."""
        super().__init__(skip_bad=skip_bad)
        if path.is_dir():
            lists = find_lists(path)
            path = next(lists[s] for s in ("test", "val", "train", *lists) if s in lists)
        self._files = [image for image, _ in read_list(path)]
        self.length = len(self._files)
        self._camera: CameraIntrinsics | None = INTRINSICS
        if not path.name.startswith(_OWN_LISTS):
            self._camera = Scene.described(path.parent, self._files).camera.intrinsics()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames."""
        for index, _, file, image in self._images((None, file) for file in self._files):
            name = f"{file.parent.name}/{file.stem}"
            camera = self._fitted(self._camera, file, image)
            yield Frame(image, index, index / FRAME_RATE, camera, name)
