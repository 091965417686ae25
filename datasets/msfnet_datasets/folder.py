"""RGB-D data of the user's own: pairs of files, with an optional ``camera.json`` and CSV lists.

:mod:`msfnet_runtime.sources.rgbd` says which files are pairs and what ``camera.json`` may hold.
Lists are ``train.csv``, ``val.csv`` and ``test.csv``: rows of ``image,depth`` from their folder.
Without them the last frames of every scene are held out, as training does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from msfnet_datasets.ground_truth import GroundTruth, read_depth, read_stored
from msfnet_datasets.layout import ALL, DatasetLayout, GroundTruths, Part
from msfnet_datasets.sample import HELD_OUT, Sample, SampleList, hold_out
from msfnet_datasets.split_lists import find_list, names_file
from msfnet_runtime import MsfnetError
from msfnet_runtime.depth_storage import ENCODINGS, DepthEncoding, DepthStorage
from msfnet_runtime.sources import holds
from msfnet_runtime.sources.nyu import read_list
from msfnet_runtime.sources.rgbd import CAMERA_FILE, CameraFile, Scene, find_scenes

_LISTS = ("train", "val", "test")

_OUTDOOR_SHARE = 0.05
"""Share of the depth beyond 10 m from which data is outdoor; an indoor sensor has stray values."""


class Folder(DatasetLayout):
    """Pairs of images and depth of any size."""

    name = "folder"
    title = "RGB-D pairs"
    expects = (
        "pairs of images and depth (rgb/NAME.jpg with depth/NAME.png, or patterns in camera.json)"
    )
    ground_truths: ClassVar[GroundTruths] = {"depth_images": tuple(ENCODINGS)}
    protocol = "indoor"

    def recognises(self, path: Path, split: str | None) -> bool:
        """Recognise a ``camera.json``, lists or pairs."""
        if not path.is_dir():
            return False
        return (path / CAMERA_FILE).is_file() or bool(_lists(path)) or holds(find_scenes, path)

    def open(
        self, path: Path, split: str | None, depth: DepthStorage | None, kind: GroundTruth
    ) -> SampleList:
        """Open a list, a list file or a held-out part; test or validation frames for None."""
        lists = _lists(path)
        if split and names_file(split):
            return SampleList(_listed(path, find_list(split, path), depth))
        if split in lists:
            return SampleList(_listed(path, lists[split], depth))
        if split in (None, ALL) and lists:
            names = [self.usual_split(path)] if split is None else list(lists)
            return SampleList(tuple(s for n in names for s in _listed(path, lists[n], depth)))
        if lists or split not in (None, ALL, *_LISTS):
            known = ", ".join(lists or (ALL, *_LISTS))
            raise MsfnetError(
                f"{path} has no list {split}; choose one of {known}, or a file", parameter="split"
            )
        samples = [s for scene in find_scenes(path) for s in _scene_samples(scene, depth)]
        if split == ALL:
            return SampleList(tuple(samples))
        train, held = hold_out(samples, HELD_OUT)
        if not held and split != "train":
            raise MsfnetError(
                f"no scene in {path} has two frames, of which one could be held out; write lists, "
                f"or choose {ALL} to use every frame",
                parameter="split",
            )
        return SampleList(tuple(train if split == "train" else held))

    def usual_protocol(self, share_beyond_10_m: float) -> str:
        """Return ``outdoor`` where much of the depth lies beyond the range of ``indoor``."""
        return "outdoor" if share_beyond_10_m > _OUTDOOR_SHARE else self.protocol

    def usual_split(self, path: Path) -> str:
        """Return the test list, or else another one; ``val``, the held-out part, without lists."""
        lists = _lists(path)
        return next((name for name in ("test", "val", "train") if name in lists), "val")

    def training_lists(self, path: Path) -> tuple[str, str] | None:
        """Return the CSV lists, the test list to validate on where there is no other."""
        lists = _lists(path)
        held = next((name for name in ("val", "test") if name in lists), "")
        return ("train", held) if held and "train" in lists else None

    def calibration_split(self, path: Path) -> str | None:
        """Return the training list or part; nothing where only other lists are given."""
        lists = _lists(path)
        return "train" if "train" in lists or not lists else None

    def parts(self, path: Path, split: str | None, depth: DepthStorage | None) -> Sequence[Part]:
        """Return every list, or every scene with the images that have no depth."""
        if split or _lists(path):
            names = [split] if split else list(_lists(path))
            return [
                Part(f"list {Path(n).name}", self.open(path, n, depth, "depth_images"))
                for n in names
            ]
        return [
            Part(
                scene.folder.name,
                SampleList(_scene_samples(scene, depth)),
                tuple(pair.image for pair in scene.pairs if pair.depth is None),
            )
            for scene in find_scenes(path)
        ]


def _lists(path: Path) -> dict[str, Path]:
    files = {name: path / f"{name}.csv" for name in _LISTS}
    return {name: file for name, file in files.items() if file.is_file()}


def _listed(path: Path, file: Path, depth: DepthStorage | None) -> tuple[Sample, ...]:
    """Return the pairs of a list, named by their images' paths.

    Raises:
        MsfnetError: as :func:`read_list`, or an image outside the data set.
    """
    root = Path(os.path.normpath(path))
    rows = read_list(file, root)
    outside = next((image for image, _ in rows if not image.is_relative_to(root)), None)
    if outside:
        raise MsfnetError(f"{file}: {outside} is outside {path}; name images from that folder")
    scene = Scene.described(path, [image for image, _ in rows])
    pairs = [
        (image.relative_to(root).with_suffix("").as_posix(), image, measured)
        for image, measured in rows
    ]
    return _samples(scene, pairs, depth)


def _scene_samples(scene: Scene, depth: DepthStorage | None) -> tuple[Sample, ...]:
    pairs = [(pair.name, pair.image, pair.depth) for pair in scene.pairs if pair.depth]
    return _samples(scene, pairs, depth)


def _samples(
    scene: Scene, pairs: Sequence[tuple[str, Path, Path]], depth: DepthStorage | None
) -> tuple[Sample, ...]:
    camera = scene.camera
    encoding, unit = _encoding(scene, [measured for _, _, measured in pairs], depth)
    return tuple(
        Sample(
            name=name,
            image_path=image,
            depth_path=measured,
            depth_reader=partial(_read, image, measured, encoding, camera),
            intrinsics=camera.intrinsics(),
            unit=unit,
            median_m=Folder.median_m,
        )
        for name, image, measured in pairs
    )


def _encoding(
    scene: Scene, files: Sequence[Path], depth: DepthStorage | None
) -> tuple[DepthEncoding, str]:
    """Return how depth is stored, and that in words: as declared, or metres where they are floats.

    Raises:
        MsfnetError: whole numbers without a declared unit; the line says what to write.
    """
    declared = depth or scene.camera.depth
    if declared:
        return ENCODINGS[declared], ENCODINGS[declared].text()
    counts = scene.camera.counts_per_metre
    if counts:
        encoding = DepthEncoding("any", counts, f"{counts:g} = 1 m")
        return encoding, f"stored numbers, {encoding.scale}"
    file, dtype = _first_dtype(files)
    if dtype.kind == "f":
        return ENCODINGS["float32_m"], ENCODINGS["float32_m"].text()
    if dtype == np.uint16 and scene.declared:
        encoding = ENCODINGS["uint16_mm"]
        return encoding, f"{encoding.text()}, because {CAMERA_FILE} names no unit"
    raise MsfnetError(
        f"{file} is {dtype} and nothing says its unit; write {scene.folder / CAMERA_FILE} with "
        '{"depth": "uint16_mm"} for millimetres, {"depth": "uint16_256"} for KITTI\'s, or '
        '{"counts_per_metre": N}'
    )


def _first_dtype(files: Sequence[Path]) -> tuple[Path, np.dtype[np.generic]]:
    """Return the type of the first file that can be read."""
    for file in files[:-1]:
        try:
            return file, read_stored(file).dtype
        except MsfnetError:
            continue
    return files[-1], read_stored(files[-1]).dtype


def _read(
    image: Path, path: Path, encoding: DepthEncoding, camera: CameraFile, size: tuple[int, int]
) -> NDArray[np.float32]:
    """Read depth within the declared range, at the image's size where another one is declared."""
    camera.intrinsics_of(image, *size)
    depth = read_depth(path, encoding)
    if camera.range_m:
        low, high = camera.range_m
        depth[(depth < low) | (depth > high)] = 0
    if depth.shape == (camera.depth_height, camera.depth_width):
        shape = size[1], size[0]
        return np.asarray(cv2.resize(depth, shape, interpolation=cv2.INTER_NEAREST))
    return depth
