"""Looks a data set over before anyone trains on it: what is there, what is missing, which unit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from msfnet_datasets.bad_data import BadSample, open_all
from msfnet_datasets.check_report import DataCheck, ListCheck
from msfnet_datasets.depth_figures import figures_of, summarise
from msfnet_datasets.ground_truth import DepthStorage
from msfnet_datasets.kitti import mapped_frames, scanned_frames
from msfnet_datasets.nyu import is_labelled
from msfnet_datasets.sample import Sample, SampleList, spread
from msfnet_datasets.samples import Layout, open_list
from msfnet_runtime import MsfnetError
from msfnet_runtime.images import IMAGE_SUFFIXES, read_image
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.sources import kitti, nyu
from msfnet_runtime.words import counted

READ_AT_MOST = 64
"""Frames of each list that are opened, spread evenly."""

SHOWN_AT_MOST = 12
"""Frames of each list that a contact sheet shows."""


@dataclass(frozen=True)
class _Look:
    """How a data set is looked at."""

    every: bool
    progress: Progress


def check_data(
    path: Path,
    *,
    layout: Layout | None = None,
    name: str = "",
    depth: DepthStorage | None = None,
    every: bool = False,
    progress: Progress = silent,
) -> DataCheck:
    """Check a data set: everything at ``path``, or one list of it.

    Args:
        path: a drive, a date, a root of dates, the root of NYU's ``data/``, NYU's labelled set,
            the root of BTS's folders, or a folder of images.
        layout: with ``name`` and ``depth`` as in :func:`msfnet_datasets.samples.open_list`;
            found out if left out.
        name: one list; all that there are if left out.
        depth: how its depth is stored.
        every: open every file and collect what is bad, instead of up to :data:`READ_AT_MOST`
            frames of each list.
        progress: called after every opened frame.

    Raises:
        MsfnetError: missing folder, none of the layouts, depth that contradicts the declared
            unit, or, but for ``every``, unreadable files.
    """
    if not path.exists():
        raise MsfnetError(f"no data at {path}; check the path of the data set")
    look = _Look(every, progress)
    found = layout or _find_layout(path, name)
    if found == "nyu" and not name:
        lists = {f"list {n}": open_list(path, "nyu", n, depth) for n in nyu.find_lists(path)}
        return _check_lists(path, found, lists, look)
    if found == "kitti" and not (name or depth):
        return _check_drives(path, look)
    if found is not None:
        title = f"list {Path(name).name}" if name else "all frames"
        return _check_lists(path, found, {title: open_list(path, found, name, depth)}, look)
    return _check_images(path, look)


def _find_layout(path: Path, name: str) -> Layout | None:
    """Tell in which layout a data set lies; None for none of them."""
    if is_labelled(path):
        return "nyu_labelled"
    if not name.endswith(".txt") and _answers(nyu.find_lists, path):
        return "nyu"
    if _answers(kitti.find_drives, path):
        return "kitti"
    return "nyu_sync" if name else None


def _answers(find: Callable[[Path], object], path: Path) -> bool:
    """Tell whether a layout's finder finds it at ``path``."""
    try:
        find(path)
    except MsfnetError:
        return False
    return True


_LAYOUTS: Mapping[Layout, str] = MappingProxyType(
    {
        "nyu": "NYU Depth V2 in DenseDepth's layout",
        "nyu_labelled": "NYU Depth V2, labelled set",
        "nyu_sync": "NYU Depth V2 in BTS's folders",
        "kitti": "KITTI raw",
    }
)


def _check_lists(
    path: Path, layout: Layout, lists: Mapping[str, SampleList], look: _Look
) -> DataCheck:
    checks = []
    for title, samples in lists.items():
        whole, missing = _split_missing(samples)
        if not samples:
            raise MsfnetError(f"{title}: every frame is declared to have no ground truth")
        if not whole:
            raise MsfnetError(
                f"{title}: none of {counted(len(samples), 'frame')} has both of its files "
                f"({missing[0]} is missing); check the path"
            )
        checks.append(
            replace(
                _check_samples(title, whole, look),
                listed=len(samples),
                missing=tuple(missing),
                without_ground_truth=len(samples.without_ground_truth),
            )
        )
    return DataCheck(path, _LAYOUTS[layout], tuple(checks))


def _check_drives(path: Path, look: _Look) -> DataCheck:
    drives = kitti.find_drives(path)
    images = {drive: kitti.frame_files(drive) for drive in drives}
    checks = []
    for drive, files in images.items():
        scanned = scanned_frames(drive)
        if scanned:
            checks.append(_check_measured(f"{drive.name}, velodyne", files, scanned, look))
        else:
            checks.append(_check_files(f"{drive.name}, no velodyne", files, look))
    mapped = mapped_frames(path)
    if mapped:
        every = [file for files in images.values() for file in files]
        checks.append(_check_measured("improved depth maps", every, mapped, look))
    return DataCheck(path, f"KITTI raw, {counted(len(drives), 'drive')}", tuple(checks))


def _check_images(path: Path, look: _Look) -> DataCheck:
    files = sorted(f for f in path.glob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise MsfnetError(
            f"{path} holds neither KITTI drives (DATE/DRIVE/image_02/data) nor NYU lists "
            "(data/nyu2_*.csv) nor images; check the path"
        )
    return DataCheck(path, "a folder of images", (_check_files("images", files, look),))


def _check_measured(
    name: str, files: Sequence[Path], samples: Sequence[Sample], look: _Look
) -> ListCheck:
    """Check the measured ones of a drive's images; the others are counted."""
    checked = _check_samples(name, samples, look)
    measured = {sample.image_path for sample in samples}
    bare = tuple(str(file) for file in files if file not in measured)
    return replace(checked, listed=checked.listed + len(bare), unmeasured=bare)


def _split_missing(samples: Sequence[Sample]) -> tuple[list[Sample], list[str]]:
    """Return the samples whose files are both there, and the files that are absent."""
    missing = [
        str(path)
        for sample in samples
        for path in (sample.image_path, sample.depth_path)
        if not path.is_file()
    ]
    absent = set(missing)
    whole = [s for s in samples if not absent & {str(s.image_path), str(s.depth_path)}]
    return whole, missing


def _check_files(name: str, files: Sequence[Path], look: _Look) -> ListCheck:
    """Check images that have no ground truth; ``files`` is not empty."""
    chosen = files if look.every else spread(files, READ_AT_MOST)
    sizes: Counter[tuple[int, int]] = Counter()
    bad: list[BadSample] = []
    for done, file in enumerate(chosen, 1):
        try:
            height, width, _ = read_image(file).shape
            sizes[height, width] += 1
        except MsfnetError as error:
            bad.append(BadSample(file.stem, file, str(error)))
        look.progress(done, len(chosen), name)
    _refuse(name, bad, len(chosen), look)
    return ListCheck(
        name,
        len(files) - len(bad),
        len(files),
        _by_frequency(sizes),
        opened=len(chosen) - len(bad),
        depth=None,
        bad=tuple(bad),
    )


def _refuse(name: str, bad: Sequence[BadSample], opened: int, look: _Look) -> None:
    """Raise if there are bad ones, but for a look at every file that found good ones too."""
    if bad and not (look.every and len(bad) < opened):
        raise MsfnetError(
            f"{name}: {len(bad)} of {counted(opened, 'opened frame')} cannot be used, e.g. "
            f"{bad[0].reason}"
        )


def _check_samples(name: str, samples: Sequence[Sample], look: _Look) -> ListCheck:
    """Check frames that have ground truth; ``samples`` is not empty."""
    chosen = samples if look.every else spread(samples, READ_AT_MOST)
    opened = open_all(chosen, figures_of, progress=look.progress)
    bad = [found for found in opened if isinstance(found, BadSample)]
    good = [(s, f) for s, f in zip(chosen, opened, strict=True) if not isinstance(f, BadSample)]
    _refuse(name, bad, len(chosen), look)
    frames = [figures for _, figures in good]
    return ListCheck(
        name,
        len(samples) - len(bad),
        len(samples),
        _by_frequency(Counter(frame.size for frame in frames)),
        len(frames),
        summarise(frames, samples[0].unit),
        bad=tuple(bad),
        shown=tuple(spread([sample for sample, _ in good], SHOWN_AT_MOST)),
    )


def _by_frequency(sizes: Counter[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    return tuple(size for size, _ in sizes.most_common())
