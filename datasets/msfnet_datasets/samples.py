"""Finds frames with ground truth, by layout and list; used by evaluation and by training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from msfnet_datasets.ground_truth import DepthEncoding, DepthStorage, GroundTruth, ScanDepth
from msfnet_datasets.kitti import (
    kitti_improved_samples,
    kitti_list_samples,
    kitti_raw_samples,
)
from msfnet_datasets.nyu import (
    is_labelled,
    nyu_labelled_samples,
    nyu_samples,
    nyu_sync_samples,
)
from msfnet_datasets.sample import SampleList
from msfnet_runtime import MsfnetError

Layout = Literal["nyu", "nyu_labelled", "nyu_sync", "kitti"]
"""DenseDepth's NYU, NYU's labelled set, BTS's folders of NYU, or KITTI raw drives."""

_STORAGE: Mapping[Layout, tuple[DepthStorage, ...]] = MappingProxyType(
    {
        "nyu": ("uint8_10m", "uint16_mm"),
        "nyu_labelled": ("float32_m",),
        "nyu_sync": ("uint16_mm",),
        "kitti": ("velodyne", "uint16_256"),
    }
)
"""How each layout may store depth."""


def open_list(
    path: Path, layout: Layout, name: str = "", depth: DepthStorage | None = None
) -> SampleList:
    """Find the samples of one list of a data set; files they name may still be absent.

    Args:
        path: the root of the data; for ``nyu_labelled`` also the ``.mat`` file itself.
        layout: how the data lies.
        name: ``nyu``: the list ``nyu2_<name>.csv``; ``nyu_labelled``: ``train`` or ``test`` of
            the official split, all if empty; ``nyu_sync``: a list file; ``kitti``: a list file,
            every frame with ground truth if empty. Files are looked for here, then in ``path``.
        depth: how the depth is stored; the layout's own convention if left out: for ``nyu``
            millimetres in the list ``test`` and 8 bits in others, scans for ``kitti``.

    Raises:
        MsfnetError: no such data or list, or depth that the layout does not have.
    """
    if not path.exists():
        raise MsfnetError(f"no data at {path}; check the path of the data set")
    if depth is not None and depth not in _STORAGE[layout]:
        raise MsfnetError(
            f"layout {layout} does not store depth as {depth}; choose "
            f"{' or '.join(_STORAGE[layout])}"
        )
    if layout == "nyu":
        return nyu_samples(path, name or None, DepthEncoding[depth.upper()] if depth else None)
    if layout == "nyu_labelled":
        return nyu_labelled_samples(path, name)
    if layout == "nyu_sync":
        return nyu_sync_samples(path, name)
    return _kitti(path, name, "improved" if depth == "uint16_256" else "velodyne")


def open_samples(path: Path, ground_truth: GroundTruth, split: str | None = None) -> SampleList:
    """Find the samples of a data set that carry the wanted kind of ground truth.

    Args:
        path: KITTI raw drives, or NYU: DenseDepth's root, the labelled set, BTS's folders.
        ground_truth: what a protocol asks for.
        split: NYU's list or split, or a list file; if left out, NYU's test list, or else its
            validation list, and every KITTI frame that has such ground truth.

    Raises:
        MsfnetError: missing folder, another layout, or no sample with such ground truth.
    """
    if not path.exists():
        raise MsfnetError(f"{path} does not exist; check the path of the data set")
    if ground_truth != "nyu_depth":
        return _kitti(path, split or "", ground_truth)
    if is_labelled(path):
        return nyu_labelled_samples(path, split or "test")
    if split and split.endswith(".txt"):
        return nyu_sync_samples(path, split)
    return nyu_samples(path, split)


def _kitti(path: Path, name: str, ground_truth: GroundTruth) -> SampleList:
    improved = ground_truth == "improved"
    scan: ScanDepth = "lidar_x" if ground_truth == "velodyne_lidar_x" else "camera_z"
    if name:
        return kitti_list_samples(path, name, improved=improved, depth=scan)
    return kitti_improved_samples(path) if improved else kitti_raw_samples(path, scan)
