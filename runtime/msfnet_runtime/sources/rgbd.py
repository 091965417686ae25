"""Folders of images with depth beside them, and the ``camera.json`` that describes them.

The first of these that finds a pair of files decides how a folder is read:

1. ``images`` and ``depths`` of ``camera.json``: patterns whose ``*`` is the frame's name.
2. A folder ``rgb``, ``image``, ``images``, ``color`` or ``colour`` beside ``depth`` or ``depths``.
3. One folder of ``NAME_rgb.*`` and ``NAME_depth.*``, or ``NAME.color.*`` and ``NAME.depth.*``, or
   ``rgb_NAME.*`` and ``depth_NAME.*``.
4. One folder of ``NAME.jpg`` and ``NAME.png``, or an image and ``NAME.npy``, ``.exr`` or ``.tiff``.

A folder of such folders is a data set of several scenes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Literal

from msfnet_runtime.errors import MsfnetError, NothingFoundError
from msfnet_runtime.images import IMAGE_SUFFIXES, read_image, read_raw
from msfnet_runtime.sources.images import FileSource, list_folder, natural_key
from msfnet_runtime.sources.kitti import projected_camera, read_calibration_file
from msfnet_runtime.typed import read_json
from msfnet_runtime.types import CameraIntrinsics, Frame

CAMERA_FILE = "camera.json"

DEPTH_SUFFIXES = (".npy", ".exr", ".tiff", ".tif", ".png")
"""The suffixes of depth files; of several files of one stem, the first of these is the depth."""

_IMAGE_FOLDERS = ("rgb", "image", "images", "color", "colour")
_DEPTH_FOLDERS = ("depth", "depths")
_ODOMETRY_SIZES = frozenset({(376, 1241), (375, 1242), (370, 1226)})
"""(height, width) of the sequences of KITTI's odometry benchmark."""
_WORD = r"(?P<word>rgb|colou?rs?|images?|img|depths?)"
_ROLES = (
    re.compile(rf"(?P<key>.+)[._-]{_WORD}", re.I),
    re.compile(rf"{_WORD}[._-](?P<key>.+)", re.I),
)
"""A file's stem that says whether it is an image or depth."""


@dataclass(frozen=True)
class CameraFile:
    """The content of ``camera.json``; every key is optional."""

    fx: float | None = None
    """Focal length along x, pixels; the six numbers of the camera go together."""
    fy: float | None = None
    cx: float | None = None
    cy: float | None = None
    width: int | None = None
    """Image width that the camera refers to, pixels."""
    height: int | None = None
    depth: Literal["uint8_10m", "uint16_mm", "uint16_256", "float32_m"] | None = None
    """How depth is stored, by its name in :mod:`msfnet_runtime.depth_storage`."""
    counts_per_metre: float | None = None
    """In place of ``depth``: the stored number of one metre, for example 5000 for TUM."""
    range_m: tuple[float, float] | None = None
    """What the sensor measures, metres; depth outside counts as none."""
    depth_width: int | None = None
    """Size of the depth files where it is not the images'; both sides go together."""
    depth_height: int | None = None
    images: str | None = None
    """Pattern of the images with one ``*``, for example ``left/*.jpg``; goes with ``depths``."""
    depths: str | None = None
    """Pattern of the depth files, likewise."""

    def __post_init__(self) -> None:
        """Refuse values that no data can be read with.

        Raises:
            MsfnetError: keys that go together or exclude each other, or a value out of range.
        """
        for names in (
            ("fx", "fy", "cx", "cy", "width", "height"),
            ("depth_width", "depth_height"),
            ("images", "depths"),
        ):
            if len({getattr(self, name) is None for name in names}) > 1:
                raise MsfnetError(f"{', '.join(names)} go together; give all or none")
        positive = (self.fx, self.fy, self.width, self.height, self.counts_per_metre)
        if any(
            v is not None and not 0 < v < math.inf
            for v in (*positive, self.depth_width, self.depth_height)
        ):
            raise MsfnetError("sizes, focal lengths and counts_per_metre must be positive numbers")
        if not all(v is None or math.isfinite(v) for v in (self.cx, self.cy)):
            raise MsfnetError("cx and cy must be numbers, in pixels")
        if self.depth and self.counts_per_metre:
            raise MsfnetError("depth and counts_per_metre exclude each other; leave one out")
        if self.range_m and not 0 <= self.range_m[0] < self.range_m[1] < math.inf:
            raise MsfnetError("range_m must be [near, far] in metres with 0 <= near < far")
        if any(pattern and pattern.count("*") != 1 for pattern in (self.images, self.depths)):
            raise MsfnetError("images and depths need one * each, for example left/*.jpg")
        if any(pattern and Path(pattern).is_absolute() for pattern in (self.images, self.depths)):
            raise MsfnetError("images and depths start at the folder, for example left/*.jpg")

    def intrinsics(self) -> CameraIntrinsics | None:
        """Return the camera, where the file has one."""
        numbers = self.fx, self.fy, self.cx, self.cy, self.width, self.height
        return None if None in numbers else CameraIntrinsics(*astuple(self)[:6])

    def intrinsics_of(self, file: Path, height: int, width: int) -> CameraIntrinsics | None:
        """Return the camera of a frame of ``height`` x ``width``, which may be resized.

        Raises:
            MsfnetError: the frame may be cropped from the declared size; the line names ``file``.
        """
        camera = self.intrinsics()
        fitted = camera and camera.fitted(height, width)
        if camera and not fitted:
            raise MsfnetError(
                f"{file} is {width}x{height} and may be cropped from the {camera.width}x"
                f"{camera.height} that its camera is declared for; declare the camera of this size"
            )
        return fitted


@dataclass(frozen=True)
class Pair:
    """One image, and the depth file that belongs to it."""

    name: str
    """``IMAGE``, or ``SCENE/IMAGE`` where the data set has several scenes: the file's stem, or what
    the ``*`` of the pattern stands for."""
    image: Path
    depth: Path | None
    """None where the image has none."""


@dataclass(frozen=True)
class Scene:
    """One folder of pairs of one camera."""

    folder: Path
    pairs: tuple[Pair, ...]
    """In the natural order of their names; at least one has depth."""
    camera: CameraFile
    declared: bool
    """A ``camera.json`` or KITTI odometry's ``calib.txt`` describes the scene."""

    @classmethod
    def described(cls, folder: Path, images: Sequence[Path], root: Path | None = None) -> Scene:
        """Return a scene without pairs, with what the files in its folder or the root say.

        Raises:
            MsfnetError: a file without a camera or with values that do not fit.
        """
        for file in (folder / CAMERA_FILE, (root or folder) / CAMERA_FILE):
            if file.is_file():
                return cls(folder, (), read_json(file, CameraFile), True)
        calibration = folder / "calib.txt"
        if calibration.is_file() and images:
            return cls(folder, (), _read_odometry(calibration, images[0]), True)
        return cls(folder, (), CameraFile(), False)


def find_scenes(path: Path) -> list[Scene]:
    """Return the scenes at ``path``: the folder itself, or the folders directly in it, sorted.

    Raises:
        NothingFoundError: there is none.
        MsfnetError: a ``camera.json`` does not fit, or the folder cannot be read.
    """
    own = _scene(path, path, "")
    folders = [] if own else [f for f in list_folder(path) if f.is_dir()]
    scenes = [own, *(_scene(folder, path, f"{folder.name}/") for folder in folders)]
    found = [scene for scene in scenes if scene]
    if not found:
        raise NothingFoundError(
            f"{path} holds no pairs of images and depth; expected rgb/NAME.jpg with "
            f"depth/NAME.png, NAME_rgb.png with NAME_depth.png, or patterns in {CAMERA_FILE}"
        )
    return found


def _scene(folder: Path, root: Path, prefix: str) -> Scene | None:
    scene = Scene.described(folder, (), root)
    found = _find_pairs(folder, scene.camera)
    if not any(depth for _, depth in found.values()):
        return None
    names = {key: key if scene.camera.images else found[key][0].stem for key in found}
    keys = sorted(found, key=lambda key: natural_key(Path(key)))
    pairs = tuple(Pair(prefix + names[key], *found[key]) for key in keys)
    if not scene.declared:
        scene = Scene.described(folder, [pair.image for pair in pairs])
    return replace(scene, pairs=pairs)


def _read_odometry(file: Path, image: Path) -> CameraFile:
    """Read the left colour camera (P2) of KITTI's odometry benchmark, whose depth is 256 = 1 m.

    Raises:
        MsfnetError: no such camera, or images of another size than the benchmark's.
    """
    height, width, _ = read_image(image).shape
    size = height, width
    camera = projected_camera(file, read_calibration_file(file), "P2", size)
    if size not in _ODOMETRY_SIZES:
        raise MsfnetError(
            f"{image} is {width}x{height}, and {file} belongs to whole images of KITTI's sizes "
            f"alone; write {CAMERA_FILE} with the camera of the resized or cropped images"
        )
    return CameraFile(**asdict(camera), depth="uint16_256")


_Found = dict[str, tuple[Path, Path | None]]
"""Image and depth by the frame's name."""


def _find_pairs(folder: Path, camera: CameraFile) -> _Found:
    if camera.images and camera.depths:
        return _joined(_matching(folder, camera.images), _matching(folder, camera.depths))
    images, depths = (
        next((folder / name for name in names if (folder / name).is_dir()), None)
        for names in (_IMAGE_FOLDERS, _DEPTH_FOLDERS)
    )
    if images and depths:
        return _joined(_by_key(_files(images)), _by_key(_files(depths)))
    files = _files(folder)
    roles = {file: _role(file) for file in files}
    shown, measured = (
        _by_key(file for file, role in roles.items() if role == wanted)
        for wanted in ("image", "depth")
    )
    return _joined(shown, measured) if measured and shown else _by_suffix(files)


def _joined(images: dict[str, Path], depths: dict[str, Path]) -> _Found:
    return {
        key: (file, depths.get(key))
        for key, file in images.items()
        if file.suffix.lower() in IMAGE_SUFFIXES
    }


def _matching(folder: Path, pattern: str) -> dict[str, Path]:
    """Return the files of a pattern by what its ``*`` stands for."""
    before, after = pattern.split("*")
    files = folder.glob(pattern.replace("[", "[[]"))  # a bracket stands for itself
    texts = {file.relative_to(folder).as_posix(): file for file in files}
    return {text[len(before) : len(text) - len(after)]: file for text, file in texts.items()}


def _files(folder: Path) -> list[Path]:
    wanted = IMAGE_SUFFIXES.union(DEPTH_SUFFIXES)
    files = list_folder(folder)
    return [f for f in files if f.suffix.lower() in wanted and not f.name.startswith(".")]


def _role(file: Path) -> str:
    """Return ``image`` or ``depth`` where the name says so, else nothing."""
    match = _role_match(file)
    if match is None:
        return ""
    return "depth" if match["word"].lower().startswith("depth") else "image"


def _role_match(file: Path) -> re.Match[str] | None:
    return next((match for role in _ROLES if (match := role.fullmatch(file.stem))), None)


def _by_key(files: Iterable[Path]) -> dict[str, Path]:
    """Return files by their frame's name, without the word for what they are."""
    matches = {file: _role_match(file) for file in files}
    return {match["key"] if match else file.stem: file for file, match in matches.items()}


def _by_suffix(files: list[Path]) -> _Found:
    """Pair files of one stem by their formats; an image of several channels is not depth."""
    stems: dict[str, dict[str, Path]] = {}
    for file in files:
        stems.setdefault(file.stem, {})[file.suffix.lower()] = file
    found: _Found = {}
    for stem, formats in stems.items():
        depth = next((s for s in DEPTH_SUFFIXES if len(formats) > 1 and s in formats), None)
        image = next((f for s, f in formats.items() if s != depth and s in IMAGE_SUFFIXES), None)
        if image:
            found[stem] = image, formats[depth] if depth else None
    first = next((depth for _, depth in found.values() if depth), None)
    if first and first.suffix.lower() != ".npy" and read_raw(first).ndim != 2:
        return {}
    return found


class RgbdFolder(FileSource):
    """The images of RGB-D folders with their camera, without the depth, scene by scene."""

    def __init__(self, path: Path, *, skip_bad: bool = False) -> None:
        super().__init__(skip_bad=skip_bad)
        self._pairs = [(s.camera, pair) for s in find_scenes(path) for pair in s.pairs]
        self.length = len(self._pairs)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames, stamped at 30 frames per second."""
        files = (((camera, pair.name), pair.image) for camera, pair in self._pairs)
        for index, (camera, name), file, image in self._images(files):
            intrinsics = camera.intrinsics_of(file, image.shape[0], image.shape[1])
            yield Frame(image, index, index / self.fps, intrinsics, name)
