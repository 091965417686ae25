"""Passes for processors: fewer MACs, the same results, borders included."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from msfnet_calibration import convert_fp16, quantize_int8
from msfnet_export import build_engine, export_network
from msfnet_export.cpu_decoder import CheapDecoderBlock, ResizedConv, WinogradConv
from msfnet_export.lowering import lower
from msfnet_runtime import MsfnetError, open_engine
from msfnet_train.blocks import DecoderBlock
from msfnet_train.network import MSFNet
from tests.networks import light_network

SIZE = (64, 96)
TYPES = ((torch.float64, 1e-10), (torch.float32, 1e-4))


def wide_network() -> MSFNet:
    """Return a light encoder with decoder blocks wide enough for every pass."""
    torch.manual_seed(3)
    return MSFNet(replace(light_network().config, decoder_width=0.5)).eval()


@pytest.mark.parametrize(("dtype", "tolerance"), TYPES)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("grid", [(4, 4), (14, 20), (5, 7), (1, 3)])
def test_winograds_scheme_is_the_convolution(
    grid: tuple[int, int], biased: bool, dtype: torch.dtype, tolerance: float
) -> None:
    """Grids of whole tiles and others, smaller than a tile too; two images."""
    torch.manual_seed(0)
    conv = nn.Conv2d(24, 10, 3, padding=1, bias=biased).to(dtype)
    features = torch.randn(2, 24, *grid, dtype=dtype)

    answer = WinogradConv(conv.weight, conv.bias, grid)(features)

    torch.testing.assert_close(answer, conv(features), rtol=0, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), TYPES)
@pytest.mark.parametrize(
    ("before", "after"),
    [((7, 10), (14, 20)), ((5, 7), (9, 13)), ((4, 4), (4, 11)), ((1, 2), (2, 3))],
)
def test_multiplying_before_resizing_is_multiplying_after(
    before: tuple[int, int], after: tuple[int, int], dtype: torch.dtype, tolerance: float
) -> None:
    """The reference is PyTorch's resizing and convolution, at whole and fractional factors."""
    torch.manual_seed(0)
    weight = torch.randn(6, 20, 3, 3, dtype=dtype) / 13
    features = torch.randn(2, 20, *before, dtype=dtype)
    resized = functional.interpolate(features, size=after, mode="bilinear", align_corners=False)

    answer = ResizedConv(weight, before, after)(features)

    expected = functional.conv2d(resized, weight, padding=1)
    torch.testing.assert_close(answer, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("resizing", "winograd"), product((True, False), repeat=2))
def test_a_decoder_block_answers_as_before(resizing: bool, winograd: bool) -> None:
    """The block has two skips; each module appears only if its pass is on."""
    torch.manual_seed(0)
    block = DecoderBlock(160, 150, 128).double()
    below = torch.randn(1, 160, 7, 10).double()
    skips = [torch.randn(1, channels, 14, 19).double() for channels in (128, 22)]

    cheap = CheapDecoderBlock(block, (7, 10), (14, 19), resizing=resizing, winograd=winograd)

    torch.testing.assert_close(cheap(below, *skips), block(below, *skips), rtol=0, atol=1e-10)
    assert (cheap.resized is not None) == resizing
    for conv in (cheap.first, cheap.second):
        assert isinstance(conv, WinogradConv if winograd else nn.Conv2d)


def test_blocks_that_would_not_gain_are_unchanged() -> None:
    """Few channels do not gain by the transforms, nor large grids by the matrices."""
    narrow = CheapDecoderBlock(
        DecoderBlock(64, 64, 64), (56, 80), (112, 160), resizing=True, winograd=True
    )

    assert narrow.resized is None
    assert isinstance(narrow.first, nn.Conv2d)
    assert isinstance(narrow.second, nn.Conv2d)


def test_an_export_for_any_machine_has_no_cpu_modules() -> None:
    """They would be slower on GPUs."""
    network, image = wide_network(), torch.randn(1, 3, *SIZE)

    kinds = [
        {type(module) for module in lower(network, image, runs_on=runs_on).modules()}
        for runs_on in ("any", "cpu")
    ]

    assert not kinds[0] & {CheapDecoderBlock, ResizedConv, WinogradConv}
    assert kinds[1] >= {CheapDecoderBlock, ResizedConv, WinogradConv}


def test_an_export_for_cpus_agrees_with_less_arithmetic_and_serves_nothing_else(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """PyTorch's depth by both libraries; calibration and TensorRT refuse it in a line."""
    network, paths = wide_network(), [tmp_path / f"{name}.onnx" for name in ("any", "cpu")]
    macs = []
    for path, runs_on in zip(paths, ("any", "cpu"), strict=True):
        report = export_network(network, path, size=SIZE, runs_on=runs_on, verify="deep")  # type: ignore[arg-type]
        assert report.max_relative_difference < 1e-4
        macs.append(report.macs)
    assert macs[1] < 0.8 * macs[0]
    image = rng.normal(size=(1, 3, *SIZE)).astype(np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(image)).numpy()
    for provider in ("cpu", "openvino"):
        with open_engine(paths[1], provider=provider) as engine:
            np.testing.assert_allclose(engine.infer(image), expected, rtol=1e-3, atol=1e-3)
            names = {block.name for block in engine.spec.blocks}
    with open_engine(paths[0]) as engine:
        assert names == {block.name for block in engine.spec.blocks}
    refused = "was exported for CPUs; export it again for all targets"
    with pytest.raises(MsfnetError, match=refused):
        quantize_int8(paths[1], tmp_path / "int8.onnx", [])
    with pytest.raises(MsfnetError, match=refused):
        convert_fp16(paths[1], tmp_path / "half.onnx")
    with pytest.raises(MsfnetError, match=refused):
        build_engine(paths[1], tmp_path / "model.engine", flavour="tensorrt-rtx")
    assert sorted(tmp_path.iterdir()) == paths


@pytest.mark.parametrize("asked", [{"precision": "fp16"}, {"dynamic": ["batch"]}])
def test_a_graph_for_cpus_has_one_size_and_fp32(tmp_path: Path, asked: dict[str, object]) -> None:
    """The error comes before any work; nothing is written."""
    with pytest.raises(MsfnetError, match="a graph for CPUs has one size and is fp32"):
        export_network(
            light_network(),
            tmp_path / "model.onnx",
            size=SIZE,
            runs_on="cpu",
            **asked,  # type: ignore[arg-type]
        )
    assert not list(tmp_path.iterdir())
