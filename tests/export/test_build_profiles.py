"""Profiles of dynamic engines: read, held against the model, built and written down."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from msfnet_export import build_engine
from msfnet_export.build_options import BuildOptions, Profile, parse_profile
from msfnet_runtime import EngineArtifact, MsfnetError
from msfnet_runtime.spec import ModelSpec, TensorSpec
from tests.onnx_models import conv_model
from tests.specs import deploy_spec, network_spec
from tests.tensorrt_types import needs_rtx


def open_spec(*shape: int | str, **changes: object) -> ModelSpec:
    """Return the spec of a network graph with that input."""
    return replace(
        network_spec(**changes),  # type: ignore[arg-type]
        inputs=(TensorSpec("image", "float32", shape),),
        outputs=(TensorSpec("prediction", "float32", (shape[0], 1, "rows", "columns"), "depth"),),
    )


def test_a_profile_is_read_as_batch_height_width() -> None:
    """Three shapes; capital letters are accepted."""
    assert parse_profile("1x64x96:1X224x320:8x480x640") == Profile(
        (1, 64, 96), (1, 224, 320), (8, 480, 640)
    )


@pytest.mark.parametrize(
    "text",
    ["", "1x64x96", "1x64x96:1x64x96", "64x96:64x96:64x96", "axbxc:1x1x1:1x1x1", "1x-2x3:::"],
)
def test_an_error_about_a_wrong_profile_shows_an_example(text: str) -> None:
    """The error is one line that quotes the text."""
    with pytest.raises(MsfnetError, match=r"is not MIN:OPT:MAX .* 1x64x96:1x224x320:8x480x640"):
        parse_profile(text)


@pytest.mark.parametrize(
    ("spec", "shapes"),
    [
        (network_spec(), []),
        (
            open_spec("batch", 3, "height", "width", height=64, width=96),
            [(1, 3, 32, 32), (1, 3, 64, 96), (8, 3, 128, 192)],
        ),
        (open_spec("batch", 3, 76, 100), [(1, 3, 76, 100), (1, 3, 76, 100), (8, 3, 76, 100)]),
        (
            open_spec(2, 3, "height", "width", height=64, width=96),
            [(2, 3, 32, 32), (2, 3, 64, 96), (2, 3, 128, 192)],
        ),
        (
            deploy_spec(inputs=(TensorSpec("frame", "uint8", ("batch", 48, 80, 3)),)),
            [(1, 48, 80, 3), (1, 48, 80, 3), (8, 48, 80, 3)],
        ),
    ],
)
def test_a_dynamic_engines_default_profile_is_the_documented_one(
    spec: ModelSpec, shapes: list[tuple[int, ...]]
) -> None:
    """1 to 8 images, sides from 32 to twice the spec's; fixed dimensions stay."""
    assert BuildOptions().shapes(spec) == ((tuple(shapes),) if shapes else ())


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ("1x64x96:1x64x128:8x32x128", "height 64:64:32 does not grow"),
        ("0x64x96:1x64x128:8x64x128", "batch 0:1:8 does not grow"),
        ("1x64x96:1x228x128:8x256x128", "height 228 is not a multiple of 32"),
        ("1x64x96:1x64x100:8x256x128", "width 100 is not a multiple of 32"),
    ],
)
def test_a_profile_that_does_not_fit_is_one_line(profile: str, words: str) -> None:
    """The line has the dimension and its numbers."""
    options = BuildOptions(profiles=(parse_profile(profile),))

    with pytest.raises(MsfnetError, match=words):
        options.shapes(open_spec("batch", 3, "height", "width"))


def test_a_profile_keeps_to_fixed_dimensions() -> None:
    """A graph of open batch has one size."""
    options = BuildOptions(profiles=(parse_profile("1x76x100:2x76x100:4x76x104"),))

    with pytest.raises(MsfnetError, match="width is fixed; give 100 everywhere"):
        options.shapes(open_spec("batch", 3, 76, 100))


@needs_rtx
def test_every_profile_is_built_and_in_the_manifest(tmp_path: Path) -> None:
    """Two profiles hold code for both; the manifest has their shapes and the options."""
    onnx.save(conv_model(open_spec("batch", 3, "height", "width")), tmp_path / "model.onnx")
    asked = ("1x32x32:1x64x96:2x96x128", "1x64x96:4x64x96:8x64x96")
    one, two = (
        build_engine(
            tmp_path / "model.onnx",
            tmp_path / f"{count}.engine",
            options=BuildOptions(
                architectures=("sm86",),
                workspace_mib=512,
                profiles=tuple(map(parse_profile, asked[:count])),
            ),
        )
        for count in (1, 2)
    )

    assert two.bytes > one.bytes
    assert two.profiles == (
        ((1, 3, 32, 32), (1, 3, 64, 96), (2, 3, 96, 128)),
        ((1, 3, 64, 96), (4, 3, 64, 96), (8, 3, 64, 96)),
    )
    assert EngineArtifact.read(two.path) == two
    assert two.options["workspace_mib"] == 512
    assert two.options["profiles"][1] == [[1, 64, 96], [4, 64, 96], [8, 64, 96]]
    assert not two.options["refit"]
