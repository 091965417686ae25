from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from msfnet_calibration import convert_fp16, quantize_int8
from msfnet_calibration.onnx_files import save_model
from msfnet_export import build_engine
from msfnet_export.build_engine import known_architectures
from msfnet_export.build_options import BuildOptions
from msfnet_export.parity import random_image
from msfnet_runtime import EngineArtifact, Frame, MsfnetError, open_engine
from msfnet_runtime.files import sha256
from tests.networks import FRAME_SIZE, NETWORK_SIZE, Exports
from tests.onnx_models import conv_model
from tests.specs import network_spec

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed"
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Write the smallest model."""
    onnx.save(conv_model(network_spec()), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@needs_rtx
@pytest.mark.parametrize("graph", ["plain", "deploy"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_graph_and_precision_builds_for_two_architectures(
    exports: Exports, tmp_path: Path, graph: str, precision: str
) -> None:
    """TensorRT for RTX takes them as strongly typed networks, on a machine without a GPU."""
    source = getattr(exports, graph).artifact.path
    if precision == "fp16":
        source = convert_fp16(source, tmp_path / "model.onnx").path
    if precision == "int8":
        size = FRAME_SIZE if graph == "deploy" else NETWORK_SIZE
        frames = [Frame(random_image(size, seed)) for seed in range(8)]
        source = quantize_int8(source, tmp_path / "model.onnx", frames, method="minmax").path

    artifact = build_engine(
        source, tmp_path / "model.engine", options=BuildOptions(architectures=("sm86", "sm89"))
    )

    assert artifact.spec.precision == precision
    assert artifact.bytes > 10_000


@needs_rtx
def test_the_manifest_says_what_was_built_from_what(model: Path, tmp_path: Path) -> None:
    """Read back from beside the engine, it is the artefact; hashes are of the files themselves."""
    steps: list[tuple[int, int, str]] = []

    artifact = build_engine(
        model,
        tmp_path / "model.engine",
        options=BuildOptions(architectures=("sm89", "SM86", "sm89")),
        progress=lambda done, total, what: steps.append((done, total, what)),
    )

    assert EngineArtifact.read(tmp_path / "model.engine") == artifact
    assert artifact.architectures == ("sm89", "sm86")
    assert artifact.onnx_sha256 == sha256(model)
    assert artifact.engine_sha256 == sha256(tmp_path / "model.engine")
    assert json.loads((tmp_path / "model.engine.json").read_text())["flavour"] == "tensorrt-rtx"
    assert steps


@needs_rtx
def test_without_a_gpu_and_a_list_it_builds_for_all_it_knows(model: Path, tmp_path: Path) -> None:
    """The default never needs a GPU."""
    artifact = build_engine(model, tmp_path / "model.engine")

    assert set(artifact.architectures) <= set(known_architectures())
    assert artifact.architectures


@needs_rtx
def test_an_engine_for_another_machine_is_refused_with_words(model: Path, tmp_path: Path) -> None:
    """No GPU, or another one: one line either way, before TensorRT sees the file."""
    build_engine(model, tmp_path / "model.engine", options=BuildOptions(architectures=("sm75",)))

    with pytest.raises(MsfnetError, match=r"GPU|CUDA|sm75"):
        open_engine(tmp_path / "model.engine")


@needs_rtx
def test_a_file_that_only_claims_fp16_is_refused(tmp_path: Path) -> None:
    """An FP32 graph would build an FP32 engine without a word."""
    onnx.save(conv_model(network_spec(precision="fp16")), tmp_path / "model.onnx")

    with pytest.raises(MsfnetError, match="says fp16 but holds no such layer"):
        build_engine(
            tmp_path / "model.onnx",
            tmp_path / "model.engine",
            options=BuildOptions(architectures=("sm86",)),
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx"]


def mixed(op_type: str) -> onnx.ModelProto:
    """Return a network graph in which an FP16 value meets an FP32 one in ``usf.rdr``."""
    model = conv_model(network_spec(precision="fp16"))
    graph = model.graph
    graph.node[0].output[0] = "conv"
    graph.node.extend(
        [
            helper.make_node("Cast", ["conv"], ["half"], "cast", to=TensorProto.FLOAT16),
            helper.make_node(op_type, ["half", "conv"], ["prediction"], "usf.rdr.join"),
        ]
    )
    if op_type == "Concat":
        graph.node[-1].attribute.append(helper.make_attribute("axis", 1))
    return model


@needs_rtx
@pytest.mark.parametrize("op_type", ["Add", "Concat", "MatMul"])
def test_mixed_types_are_refused_before_the_builder_by_name(
    tmp_path: Path, op_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strong typing allows none; the line names the node after its module."""
    onnx.save(mixed(op_type), tmp_path / "model.onnx")
    builder = sys.modules["msfnet_export.build_engine"]
    monkeypatch.setattr(builder, "configure", lambda *_: pytest.fail("too late"))

    with pytest.raises(MsfnetError, match=rf"{op_type} usf\.rdr\.join: .*same"):
        build_engine(
            tmp_path / "model.onnx",
            tmp_path / "model.engine",
            options=BuildOptions(architectures=("sm86",)),
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx"]


def test_an_export_never_writes_mixed_types(tmp_path: Path) -> None:
    """Found when the file is saved, on machines without TensorRT as well."""
    with pytest.raises(MsfnetError, match=r"types or shapes do not fit: .*usf\.rdr\.join"):
        save_model(mixed("Add"), tmp_path / "model.onnx", network_spec())
    assert not list(tmp_path.iterdir())


@needs_rtx
def test_a_graph_tensorrt_refuses_gives_its_reason(tmp_path: Path) -> None:
    """An operator no TensorRT knows; no engine and no manifest are left."""
    broken = conv_model(network_spec())
    broken.graph.node[0].op_type = "Convolute"
    onnx.save(broken, tmp_path / "model.onnx")

    with pytest.raises(MsfnetError, match=r"TensorRT cannot read .*: Convolute"):
        build_engine(
            tmp_path / "model.onnx",
            tmp_path / "model.engine",
            options=BuildOptions(architectures=("sm86",)),
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx"]


@needs_rtx
@pytest.mark.parametrize(
    ("architecture", "message"), [("sm90", "choose sm75"), ("gtx", "cannot build for 'gtx'")]
)
def test_an_unknown_architecture_is_answered_with_the_known_ones(
    model: Path, tmp_path: Path, architecture: str, message: str
) -> None:
    """TensorRT for RTX has no data-centre GPUs."""
    with pytest.raises(MsfnetError, match=message):
        build_engine(
            model, tmp_path / "model.engine", options=BuildOptions(architectures=(architecture,))
        )


def test_a_missing_library_is_named(model: Path, tmp_path: Path) -> None:
    """TensorRT proper comes from elsewhere; the line says which extra brings it."""
    if importlib.util.find_spec("tensorrt"):
        pytest.skip("tensorrt is installed here")
    with pytest.raises(MsfnetError, match=r"msfnet\[tensorrt\]"):
        build_engine(model, tmp_path / "model.engine", flavour="tensorrt")


def test_the_engine_must_be_called_one(model: Path, tmp_path: Path) -> None:
    """The suffix tells ``open_engine`` what to do."""
    with pytest.raises(MsfnetError, match=r"does not end in \.engine"):
        build_engine(model, tmp_path / "model.bin")


@pytest.mark.parametrize("content", [b"", b"not a model", np.arange(64, dtype=np.uint8).tobytes()])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    """Empty, text, and bytes."""
    (tmp_path / "model.onnx").write_bytes(content)

    with pytest.raises(MsfnetError, match=r"model\.onnx"):
        build_engine(tmp_path / "model.onnx", tmp_path / "model.engine")
