"""Options of an engine's builder, and which of them each TensorRT flavour supports."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

from msfnet_runtime import ModelSpec, MsfnetError
from msfnet_runtime.artifacts import Flavour, ShapeRange
from msfnet_runtime.typed import to_plain

MAX_BATCH = 8
"""Largest batch of an engine of dynamic batch, unless a profile says otherwise."""

MIN_SIDE = 32
"""Smallest side of an engine of dynamic size, pixels, unless a profile says otherwise; every side
that a graph of open size accepts is a multiple of it."""

MAX_LEVEL = 5
"""TensorRT's highest optimisation level."""

Compatibility = Literal["ampere-plus", "same-compute-capability"]

COMPATIBILITIES: tuple[Compatibility, ...] = ("ampere-plus", "same-compute-capability")

Images = tuple[int, int, int]
"""Batch, height in pixels, width in pixels."""


class Profile(NamedTuple):
    """The images that a dynamic engine accepts."""

    smallest: Images
    tuned: Images
    """Images that the engine is tuned for."""
    largest: Images


@dataclass(frozen=True)
class BuildOptions:
    """Options of the builder; one that a flavour does not support is an error, never ignored."""

    architectures: tuple[str, ...] = ()
    """Compute capabilities such as ``("sm86", "sm89")``. Empty: that of this machine's GPU, or, for
    ``tensorrt-rtx`` without a GPU, all that it supports."""
    workspace_mib: int | None = None
    """Largest scratch memory a layer may use, MiB; no limit if None."""
    optimization_level: int | None = None
    """0 (fast to build) to 5 (fast to run); ``tensorrt`` only."""
    timing_cache: str | os.PathLike[str] | None = None
    """File of ``tensorrt``'s timings; created if it is missing, else extended."""
    version_compatible: bool = False
    """Load under later versions, too; ``tensorrt`` only."""
    hardware_compatibility: Compatibility | None = None
    """Run on other GPUs than this machine's, too; ``tensorrt`` only."""
    profiles: tuple[Profile, ...] = ()
    """Shapes that a dynamic engine accepts. Empty: one profile of 1 to 8 images with sides from 32
    pixels to twice the spec's."""
    refit: bool = False
    """Allow the weights to be replaced later."""
    strip_weights: bool = False
    """Leave out the weights; the engine runs only after they are put back from the ONNX file."""
    verbose: bool = False
    """Print TensorRT's own messages on standard error."""

    def check(self, flavour: Flavour) -> None:
        """Refuse options that a flavour does not support.

        TensorRT for RTX 1.7 builds the same bytes at every optimisation level, documents its
        timing cache as without effect, brings no lean runtime and warns that it ignores hardware
        compatibility; all four were measured.

        Raises:
            MsfnetError: an unsupported option, or a number out of range.
        """
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise MsfnetError(
                f"workspace {self.workspace_mib} MiB is too small; use at least 1",
                parameter="workspace_mib",
            )
        level = self.optimization_level
        if level is not None and not 0 <= level <= MAX_LEVEL:
            raise MsfnetError(
                f"optimisation level {level} is unknown; choose 0 to {MAX_LEVEL}",
                parameter="optimization_level",
            )
        if self.hardware_compatibility not in (None, *COMPATIBILITIES):
            raise MsfnetError(
                f"unknown hardware compatibility {self.hardware_compatibility!r}; choose one of "
                f"{', '.join(COMPATIBILITIES)}",
                parameter="hardware_compatibility",
            )
        if flavour == "tensorrt-rtx":
            self._check_rtx()

    def _check_rtx(self) -> None:
        absent = {
            "optimization_level": "optimisation levels",
            "timing_cache": "timing cache",
            "version_compatible": "version-compatible engines",
            "hardware_compatibility": "hardware compatibility; name the architectures instead",
        }
        for name, words in absent.items():
            if getattr(self, name) not in (None, False):
                raise MsfnetError(
                    f"tensorrt-rtx has no {words}; leave it out, or choose flavour tensorrt",
                    parameter=name,
                )

    def shapes(self, spec: ModelSpec) -> tuple[ShapeRange, ...]:
        """Return the profiles as shapes of the model's input; none for a static model.

        Raises:
            MsfnetError: a profile that does not fit the model.
        """
        dynamic = any(isinstance(side, str) for side in spec.inputs[0].shape)
        if self.profiles and not dynamic:
            shape = "x".join(map(str, spec.inputs[0].shape))
            raise MsfnetError(
                f"a profile is for dynamic graphs, this one accepts {shape} only; leave it out, or "
                "export a dynamic graph",
                parameter="profiles",
            )
        if not dynamic:
            return ()
        return tuple(_shapes(profile, spec) for profile in self.profiles or (_default(spec),))

    def recorded(self) -> dict[str, Any]:
        """Return the options for an engine's manifest: all but architectures and verbosity."""
        fields: dict[str, Any] = to_plain(self)
        del fields["architectures"], fields["verbose"]
        return fields


DEFAULTS = BuildOptions()


def parse_profile(text: str) -> Profile:
    """Read ``MIN:OPT:MAX``, each as batch x height x width: ``1x64x96:1x224x320:8x480x640``.

    Raises:
        MsfnetError: the text has another form.
    """
    shapes = [tuple(part.split("x")) for part in text.lower().split(":")]
    if [len(shape) for shape in shapes] != [3, 3, 3] or not all(
        side.isdecimal() for shape in shapes for side in shape
    ):
        raise MsfnetError(
            f"profile {text!r} is not MIN:OPT:MAX of batch x height x width; write for example "
            "1x64x96:1x224x320:8x480x640",
            parameter="profiles",
        )
    return Profile(*(cast(Images, tuple(int(side) for side in shape)) for shape in shapes))


def _default(spec: ModelSpec) -> Profile:
    """Return the profile of options that have none, tuned for the spec's size."""
    height, width = spec.size
    ranges = ((1, 1, MAX_BATCH), (MIN_SIDE, height, 2 * height), (MIN_SIDE, width, 2 * width))
    columns = [
        (side, side, side) if isinstance(side, int) else range_
        for side, range_ in zip(_images(spec), ranges, strict=True)
    ]
    return Profile(*cast(tuple[Images, Images, Images], tuple(zip(*columns, strict=True))))


def _images(spec: ModelSpec) -> tuple[int | str, int | str, int | str]:
    """Return batch, height and width of the model's input."""
    shape = spec.inputs[0].shape
    return (shape[0], *(shape[1:3] if spec.graph == "deploy" else shape[2:4]))  # type: ignore[return-value]


def _shapes(profile: Profile, spec: ModelSpec) -> ShapeRange:
    """Return a profile in the input's order of dimensions.

    Raises:
        MsfnetError: it does not fit the model.
    """
    text = ":".join("x".join(map(str, images)) for images in profile)
    for name, side, sizes in zip(
        ("batch", "height", "width"), _images(spec), zip(*profile, strict=True), strict=True
    ):
        if not 1 <= sizes[0] <= sizes[1] <= sizes[2]:
            raise MsfnetError(
                f"profile {text}: {name} {':'.join(map(str, sizes))} does not grow from MIN over "
                "OPT to MAX; put them in order"
            )
        if isinstance(side, int) and set(sizes) != {side}:
            raise MsfnetError(
                f"profile {text}: the model's {name} is fixed; give {side} everywhere"
            )
        odd = [size for size in sizes if size % MIN_SIDE]
        if isinstance(side, str) and name != "batch" and odd:
            raise MsfnetError(
                f"profile {text}: {name} {odd[0]} is not a multiple of {MIN_SIDE}, as "
                "graphs of open size require; choose another"
            )
    if spec.graph == "deploy":
        return cast(ShapeRange, tuple((*images, 3) for images in profile))
    return cast(ShapeRange, tuple((n, 3, height, width) for n, height, width in profile))
