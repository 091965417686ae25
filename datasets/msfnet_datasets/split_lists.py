"""Reads the usual text lists that split KITTI and NYU Depth V2.

One entry a line, of words: BTS's ``image depth focal`` (Lee et al. 2019; ``None`` where there is
no improved depth), monodepth2's ``date/drive index l|r`` (Godard et al. 2019), and plain lists of
image paths, of which monodepth's have the right image behind the left one. Paths start at the
data's root, with a leading slash or without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from msfnet_runtime import MsfnetError
from msfnet_runtime.images import IMAGE_SUFFIXES
from msfnet_runtime.text_lists import is_header, read_lines

_SIDES = {"l": "image_02", "r": "image_03"}


@dataclass(frozen=True)
class ListEntry:
    """One line: where its image lies, and what the list says of its depth."""

    image: PurePosixPath
    """The path below the data's root; the file's suffix may differ."""
    depth: PurePosixPath | None = None
    """The path below the data's root; None where the list names none."""
    declared_none: bool = False
    """The list says that there is no depth map for this image."""


def names_file(name: str) -> bool:
    """Return whether a list is asked for by its file: it ends in ``.txt`` or ``.csv``."""
    return Path(name).suffix.lower() in (".txt", ".csv")


def find_list(name: str, data: Path) -> Path:
    """Return the list file of that name, from here or from the data's folder.

    Raises:
        MsfnetError: there is none.
    """
    for file in (Path(name), data / name):
        if file.is_file():
            return file
    raise MsfnetError(f"no list file {name} here or in {data}; check its path", parameter="split")


def read_split_list(file: Path) -> list[ListEntry]:
    """Return the entries of a list; a first line that names the columns is left out.

    Raises:
        MsfnetError: unreadable, empty, or a line in none of the formats.
    """
    lines = [(number, line.split()) for number, line in read_lines(file)]
    if len(lines) > 1 and is_header(lines[0][1]):
        del lines[0]
    entries = [_entry(words, file, number) for number, words in lines]
    if not entries:
        raise MsfnetError(f"{file} is empty; fill the list")
    return entries


def _entry(words: Sequence[str], file: Path, number: int) -> ListEntry:
    if any(".." in PurePosixPath(word).parts for word in words):
        raise MsfnetError(f"{file}, line {number}: a path leaves the data's root; correct the list")
    if len(words) == 3 and words[1].isdecimal() and words[2] in _SIDES:
        name = f"{int(words[1]):010d}.png"
        return ListEntry(_path(words[0]) / _SIDES[words[2]] / "data" / name)
    if len(words) <= 3 and _is_image(words[0]):
        second = words[1] if len(words) > 1 else ""
        if second == "None":
            return ListEntry(_path(words[0]), declared_none=True)
        if not second or "image_03/data/" in second:
            return ListEntry(_path(words[0]))
        if _is_image(second):
            return ListEntry(_path(words[0]), _path(second))
    raise MsfnetError(
        f"{file}, line {number}: neither `image depth focal` nor `date/drive index l` nor an image "
        "path; correct the list"
    )


def _path(text: str) -> PurePosixPath:
    return PurePosixPath(text.lstrip("/"))


def _is_image(text: str) -> bool:
    return PurePosixPath(text).suffix.lower() in IMAGE_SUFFIXES


def existing_image(path: Path) -> Path:
    """Return the file itself, or the one that has it as ``.jpg`` for ``.png`` or the reverse."""
    if not path.is_file():
        other = path.with_suffix(".jpg" if path.suffix == ".png" else ".png")
        if other.is_file():
            return other
    return path
