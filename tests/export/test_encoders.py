"""Five-stage encoders from timm: exported exactly, and built by TensorRT in FP32 and FP16."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from msfnet_calibration import convert_fp16
from msfnet_export import build_engine, export_network
from msfnet_export.build_options import BuildOptions
from msfnet_runtime import MsfnetError
from msfnet_train import MSFNet, NetworkConfig
from tests.networks import FORBIDDEN

slow = pytest.mark.slow

CONVOLUTIONAL = [
    "mobilenetv3_large_100",
    pytest.param("resnet18", marks=slow),
    pytest.param("mobilenetv4_conv_small", marks=slow),
    pytest.param("resnet50", marks=slow),
    pytest.param("efficientnet_b0", marks=slow),
    pytest.param("tf_efficientnet_b0", marks=slow),
    pytest.param("regnety_002", marks=slow),
    pytest.param("regnetx_002", marks=slow),
    pytest.param("legacy_seresnext50_32x4d", marks=slow),
    pytest.param("legacy_senet154", marks=slow),
]


def small(encoder: str) -> MSFNet:
    """Return an MSFNet around an encoder, seeded, narrow but for the encoder."""
    torch.manual_seed(7)
    config = NetworkConfig(
        encoder=encoder, pretrained=False, decoder_width=0.125, usf_width=16, usf_output=16
    )
    network = MSFNet(config)
    torch.nn.init.constant_(network.decoder.head.bias, 5.0)  # type: ignore[arg-type]
    return network.eval()


@pytest.mark.parametrize("encoder", CONVOLUTIONAL)
def test_an_encoder_exports_exactly_and_builds(encoder: str, tmp_path: Path) -> None:
    """The size is not a multiple of 32; blocks are compared; the graph has no index arithmetic."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    path, half = tmp_path / "model.onnx", tmp_path / "half.onnx"

    report = export_network(small(encoder), path, size=(76, 100), verify="deep")
    convert_fp16(path, half)

    assert report.max_relative_difference < 1e-4
    assert [block.name for block in report.blocks][:5] == [f"encoder.stage{i}" for i in range(1, 6)]
    assert not FORBIDDEN & set(report.operators)
    for model, precision in ((path, "fp32"), (half, "fp16")):
        engine = build_engine(
            model, model.with_suffix(".engine"), options=BuildOptions(architectures=("sm86",))
        )
        assert engine.spec.precision == precision


@slow
def test_an_encoder_with_attention_exports_and_builds(tmp_path: Path) -> None:
    """Attention adds transposes; the other rules hold."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    network = small("mobilenetv4_hybrid_medium")

    report = export_network(network, tmp_path / "model.onnx", size=(64, 96), verify="deep")
    convert_fp16(tmp_path / "model.onnx", tmp_path / "half.onnx")

    assert report.operators["Softmax"] > 0
    for name in ("model", "half"):
        build_engine(
            tmp_path / f"{name}.onnx",
            tmp_path / f"{name}.engine",
            options=BuildOptions(architectures=("sm86",)),
        )


@pytest.mark.parametrize(
    "dynamic",
    [
        ("batch", "size"),
        pytest.param(("batch",), marks=pytest.mark.slow),
        pytest.param(("size",), marks=pytest.mark.slow),
    ],
)
def test_dynamic_graphs_build(dynamic: tuple[str, ...], tmp_path: Path) -> None:
    """Both precisions build, with a profile of batches and sizes."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    size = (64, 96) if "size" in dynamic else (76, 100)
    path, half = tmp_path / "model.onnx", tmp_path / "half.onnx"
    export_network(small("mobilenetv3_small_050"), path, size=size, dynamic=dynamic)  # type: ignore[arg-type]
    convert_fp16(path, half)

    for model in (path, half):
        engine = build_engine(
            model, model.with_suffix(".engine"), options=BuildOptions(architectures=("sm86",))
        )
        assert engine.spec.inputs[0].shape[0] == ("batch" if "batch" in dynamic else 1)


@pytest.mark.parametrize("encoder", ["convnext_atto", "fastvit_t8", "repvit_m0_9"])
def test_an_encoder_of_four_stages_is_refused_by_name(encoder: str) -> None:
    """Before training or export begin, with its strides."""
    with pytest.raises(MsfnetError, match=f"encoder {encoder} has stages at strides 4, 8, 16, 32"):
        small(encoder)


@pytest.mark.parametrize("encoder", ["hrnet_w18_small", "resnetaa50", "botnet26t_256"])
def test_an_encoder_of_some_sizes_is_refused_by_name(encoder: str) -> None:
    """Five stages at the right strides, but branches that do not fit at odd sides, or one size."""
    with pytest.raises(MsfnetError, match=f"encoder {encoder} does not take images of every size"):
        small(encoder)


@pytest.mark.parametrize("encoder", ["skresnet18", pytest.param("mixnet_s", marks=slow)])
def test_an_encoder_that_splits_its_channels_exports_exactly(encoder: str, tmp_path: Path) -> None:
    """``torch.split`` becomes one Split with constant sizes, and FP16 keeps it."""
    report = export_network(small(encoder), tmp_path / "model.onnx", size=(76, 100))
    half = convert_fp16(tmp_path / "model.onnx", tmp_path / "half.onnx")

    assert report.max_relative_difference < 1e-4
    assert report.operators["Split"] > 0
    assert not {"SplitToSequence", "SequenceAt"} & set(report.operators)
    assert half.spec.precision == "fp16"
