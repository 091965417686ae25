"""Reads NYU Depth V2 in DenseDepth's layout: CSV lists of ``image,depth`` paths.

Paths are relative to the root, the folder with ``data/``; lists are ``data/nyu2_train.csv`` and
others of that form.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from msfnet_runtime.errors import MsfnetError, NothingFoundError
from msfnet_runtime.sources.images import FileSource
from msfnet_runtime.types import CameraIntrinsics, Frame

INTRINSICS = CameraIntrinsics(518.8579, 519.4696, 325.5824, 253.7362, 640, 480)
"""The colour camera of the NYU Depth V2 toolbox (``camera_params.m``)."""

FRAME_RATE = 30.0


def find_lists(path: Path) -> dict[str, Path]:
    """Return the lists of a data set by split (``train``, ``val``, ``test``).

    Raises:
        NothingFoundError: there is none.
    """
    lists = {
        file.stem.removeprefix("nyu2_"): file
        for folder in (path / "data", path)
        for file in sorted(folder.glob("nyu2_*.csv"))
    }
    if not lists:
        raise NothingFoundError(
            f"{path} holds no NYU list; expected data/nyu2_train.csv or the like"
        )
    return lists


def read_list(file: Path) -> list[tuple[Path, Path]]:
    """Return the (image, depth) paths of a list, whose rows start at the data's root.

    The root of DenseDepth's ``data/nyu2_*.csv`` is the folder that holds ``data/``; that of any
    other list is its own folder.

    Raises:
        MsfnetError: missing, empty, or a row that is not a pair.
    """
    root = file.parent.parent if file.name.startswith("nyu2_") else file.parent
    pairs = []
    try:
        with file.open(newline="", encoding="utf-8") as rows:
            for number, row in enumerate(csv.reader(rows), 1):
                if len(row) != 2:
                    raise MsfnetError(f"{file}, line {number}: not `image,depth`; correct the list")
                pairs.append((root / row[0].strip(), root / row[1].strip()))
    except (OSError, UnicodeDecodeError, csv.Error):
        raise MsfnetError(f"{file} is not a readable list; check the path") from None
    if not pairs:
        raise MsfnetError(f"{file} is empty; fill the list")
    return pairs


class NyuList(FileSource):
    """Yields the images of one list in order, named ``ROOM/IMAGE``."""

    fps = FRAME_RATE

    def __init__(self, path: Path, *, skip_bad: bool = False) -> None:
        """Open a CSV list, or the first of a data set's test, validation and training lists."""
        super().__init__(skip_bad=skip_bad)
        if path.is_dir():
            lists = find_lists(path)
            path = next(lists[s] for s in ("test", "val", "train", *lists) if s in lists)
        self._files = [image for image, _ in read_list(path)]
        self.length = len(self._files)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames."""
        for index, _, file, image in self._images((None, file) for file in self._files):
            name = f"{file.parent.name}/{file.stem}"
            yield Frame(image, index, index / FRAME_RATE, name=name)
