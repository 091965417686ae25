"""All kinds of data sets, and how one is opened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from msfnet_datasets.folder import Folder
from msfnet_datasets.ground_truth import GroundTruth
from msfnet_datasets.kitti import Kitti
from msfnet_datasets.layout import DatasetLayout
from msfnet_datasets.nyu import Nyu
from msfnet_datasets.nyu_labelled import NyuLabelled
from msfnet_datasets.nyu_sync import NyuSync
from msfnet_datasets.sample import SampleList
from msfnet_runtime import Frame, MsfnetError
from msfnet_runtime.depth_storage import DepthStorage
from msfnet_runtime.source import Source
from msfnet_runtime.sources import IterableSource, open_source

Layout = Literal["nyu_labelled", "nyu", "kitti", "nyu_sync", "folder"]
"""The name of a kind of data set, for recipes and options."""

LAYOUTS: Mapping[str, DatasetLayout] = MappingProxyType(
    {layout.name: layout for layout in (NyuLabelled(), Nyu(), Kitti(), NyuSync(), Folder())}
)
"""Every :data:`Layout`, in the order in which a data set is recognised."""


def open_dataset(
    path: Path | str,
    layout: Layout | None = None,
    split: str | None = None,
    *,
    depth: DepthStorage | None = None,
    ground_truth: GroundTruth | None = None,
) -> SampleList:
    """Find the frames of a data set that have ground truth.

    Args:
        path: the root of the data; for NYU's labelled set also the ``.mat`` file itself.
        layout: how the data lies; recognised if None.
        split: one of the data set's lists, or a list file, from here or from ``path``;
            ``all``: every frame; None: what the data set is usually scored on, which is its test
            or validation list, or else every KITTI frame, or a folder's held-out frames.
        depth: how depth is stored; None: as the layout has it.
        ground_truth: the kind that a protocol asks for; None: the usual one of the data set.

    Returns:
        Samples that read image and depth when asked. Files that a list names may be absent.

    Raises:
        MsfnetError: no such data or list, none of the layouts, or no such ground truth.
    """
    path = Path(path)
    if not path.exists():
        raise MsfnetError(f"no data at {path}: it does not exist; check the path of the data set")
    chosen = LAYOUTS[layout] if layout else find_layout(path, split, ground_truth)
    return chosen.open(path, split, depth, chosen.kind(depth, ground_truth))


def recognise(path: Path, split: str | None = None) -> DatasetLayout | None:
    """Return the kind of data set at ``path``; None for none of them."""
    return next((known for known in LAYOUTS.values() if known.recognises(path, split)), None)


def find_layout(
    path: Path, split: str | None = None, ground_truth: GroundTruth | None = None
) -> DatasetLayout:
    """Return the kind of data set at ``path`` that has a kind of ground truth.

    Raises:
        MsfnetError: it is none, or one without such ground truth; the line says what was expected.
    """
    fitting = [
        known
        for known in LAYOUTS.values()
        if ground_truth is None or ground_truth in known.ground_truths
    ]
    if len(fitting) == 1:
        return fitting[0]
    for known in fitting:
        if known.recognises(path, split):
            return known
    other = recognise(path, split)
    found = f"{path} holds no data set of a known layout"
    if other:
        found = (
            f"{path} is {other.title}, which has no {ground_truth} depth (usual protocol: "
            f"{other.protocol})"
        )
    raise MsfnetError(f"{found}; expected {'; or '.join(known.expects for known in fitting)}")


def open_frames(what: str, split: str | None = None) -> Source:
    """Open the frames of one list of a data set; without a list, any source.

    Args:
        what: a data set, or as :func:`~msfnet_runtime.sources.open_source` takes it.
        split: as :func:`open_dataset` takes it.

    Raises:
        MsfnetError: as both.
    """
    if split is None:
        return open_source(what)
    return IterableSource(_Frames(open_dataset(what, split=split)))


def open_training_frames(what: str, split: str | None = None) -> Source:
    """Open the frames of a list; without one, those of a data set that are not the ones to score.

    Raises:
        MsfnetError: as :func:`open_frames`.
    """
    path = Path(what)
    known = recognise(path) if split is None and path.exists() else None
    return open_frames(what, known.calibration_split(path) if known else split)


class _Frames:
    """The images of samples, read when they are asked for."""

    def __init__(self, samples: SampleList) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[Frame]:
        return (sample.frame(index) for index, sample in enumerate(self._samples))
