from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from msfnet_calibration import convert_fp16, quantize_int8
from msfnet_calibration.onnx_files import save_model
from msfnet_export import build_engine, export_network
from msfnet_export.build_engine import known_architectures
from msfnet_export.build_options import BuildOptions
from msfnet_export.parity import random_image
from msfnet_runtime import EngineArtifact, Frame, MsfnetError, OnnxArtifact, open_engine
from msfnet_runtime.files import sha256
from msfnet_runtime.onnx_metadata import read_onnx_spec
from msfnet_runtime.precision_records import CalibrationRecord
from msfnet_runtime.spec import METADATA_KEY
from tests.networks import DEPLOY_SIZE, FRAME_SIZE, Exports
from tests.onnx_models import conv_model, quantized_conv_model
from tests.specs import network_spec
from tests.tensorrt_types import needs_rtx


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Write the smallest model."""
    onnx.save(conv_model(network_spec()), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


PRECISIONS: dict[str, Callable[[Path, Path, list[Frame]], OnnxArtifact]] = {
    "fp16": lambda source, target, _: convert_fp16(source, target),
    "int8": lambda source, target, frames: quantize_int8(source, target, frames, method="minmax"),
}


@pytest.fixture(scope="module")
def graphs(exports: Exports, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Add a dynamic graph to the static one."""
    path = tmp_path_factory.mktemp("dynamic") / "model.onnx"
    export_network(exports.network, path, size=DEPLOY_SIZE, dynamic=("batch", "size"))
    return {"static": exports.deploy.artifact.path, "dynamic": path}


@needs_rtx
@pytest.mark.parametrize("graph", ["static", "dynamic"])
@pytest.mark.parametrize("precision", ["fp32", *PRECISIONS])
def test_every_graph_and_precision_builds_for_all_architectures(
    graphs: dict[str, Path], tmp_path: Path, graph: str, precision: str
) -> None:
    """One strongly typed engine is built without a GPU; its types are those of the precision."""
    source = graphs[graph]
    if precision in PRECISIONS:
        size = FRAME_SIZE if graph == "static" else DEPLOY_SIZE
        frames = [Frame(random_image(size, seed)) for seed in range(4)]
        source = PRECISIONS[precision](source, tmp_path / "model.onnx", frames).path

    artifact = build_engine(
        source,
        tmp_path / "model.engine",
        options=BuildOptions(architectures=known_architectures()),
    )

    assert artifact.architectures == ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
    assert artifact.spec.precision == precision[:4]
    assert artifact.bytes > 10_000
    assert artifact.blocks["encoder.stage5"].startswith(precision[:4])
    lowest = {"fp32": "float32", "fp16": "float16", "int8": "int8"}[precision[:4]]
    assert artifact.types[lowest] > 20
    assert ("int8" in artifact.types, "float16" in artifact.types) == (
        lowest == "int8",
        lowest == "float16",
    )
    assert len(artifact.profiles) == (graph == "dynamic")


@needs_rtx
def test_a_graph_that_turing_cannot_run_is_built_for_the_others_unless_turing_is_asked_for(
    exports: Exports, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Pooling of uneven ratio is an FP32 product; both remedies in the error work."""
    source = exports.plain.artifact.path
    options = BuildOptions(architectures=known_architectures())

    with pytest.raises(MsfnetError, match=r"Turing out \(build for (\S+) only\).* FP16") as caught:
        build_engine(source, tmp_path / "model.engine", options=options)
    assert not list(tmp_path.iterdir())

    chosen = build_engine(source, tmp_path / "c.engine").architectures
    others = tuple(str(caught.value).split("build for ")[1].split(" only")[0].split(","))
    left = BuildOptions(architectures=others)
    half = convert_fp16(source, tmp_path / "half.onnx").path
    assert build_engine(source, tmp_path / "a.engine", options=left).architectures == others
    assert chosen == others or "sm75" not in chosen  # the GPU that is here, if there is one
    assert ("sm75 (Turing)" in caplog.text) == (chosen == others)
    assert build_engine(half, tmp_path / "b.engine", options=options).architectures[0] == "sm75"


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
    assert artifact.onnx_file == "model.onnx"
    assert artifact.types == {"float32": 1}
    age = datetime.now(timezone.utc) - datetime.fromisoformat(artifact.built)
    assert timedelta(seconds=-1) < age < timedelta(minutes=5)
    written = json.loads((tmp_path / "model.engine.json").read_text())
    assert (written["flavour"], written["schema_version"]) == ("tensorrt-rtx", 2)
    done, total, what = steps[-1]
    assert done == total > 1
    assert re.fullmatch(r"Building engine, \d+\.\d s", what)


@needs_rtx
def test_weights_beside_the_model_are_part_of_its_hash(exports: Exports, tmp_path: Path) -> None:
    """Two models that differ only in weights have different hashes."""
    model = onnx.load(exports.plain.artifact.path)
    spec = replace(read_onnx_spec(exports.plain.artifact.path), weights_file="w.data")
    onnx.helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.data")
    options = BuildOptions(architectures=("sm86",))

    artifact = build_engine(tmp_path / "m.onnx", tmp_path / "m.engine", options=options)

    parts = [(tmp_path / name).read_bytes() for name in ("m.onnx", "w.data")]
    assert artifact.onnx_sha256 == hashlib.sha256(b"".join(parts)).hexdigest()
    assert len(parts[1]) > len(parts[0])


@needs_rtx
def test_without_a_gpu_and_architectures_it_builds_for_all_that_are_known(
    model: Path, tmp_path: Path
) -> None:
    """The default never needs a GPU."""
    artifact = build_engine(model, tmp_path / "model.engine")

    assert set(artifact.architectures) <= set(known_architectures())
    assert artifact.architectures


@needs_rtx
def test_an_engine_for_another_machine_is_refused(model: Path, tmp_path: Path) -> None:
    """No GPU, or another one: one line, before TensorRT reads the file."""
    build_engine(model, tmp_path / "model.engine", options=BuildOptions(architectures=("sm75",)))

    with pytest.raises(MsfnetError, match=r"GPU|CUDA|sm75"):
        open_engine(tmp_path / "model.engine")


@needs_rtx
def test_an_engine_is_called_what_its_weights_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An FP32 graph that is labelled FP16 builds an FP32 engine, and a line says so."""
    onnx.save(conv_model(network_spec(precision="fp16")), tmp_path / "model.onnx")

    build_engine(
        tmp_path / "model.onnx",
        tmp_path / "model.engine",
        options=BuildOptions(architectures=("sm86",)),
    )

    artifact = EngineArtifact.read(tmp_path / "model.engine")
    assert artifact.spec.precision == "fp32"
    assert "float16" not in artifact.types
    assert "model.onnx is labelled fp16, but its weights are fp32" in caplog.text


def test_int8_for_cpus_is_refused_by_what_to_do(tmp_path: Path) -> None:
    """TensorRT has no zero points; the line names the target to calibrate for."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    record = CalibrationRecord("minmax", "cpu", 1, 4, activations="uint8")
    spec = network_spec(precision="int8", calibration=record)
    onnx.save(quantized_conv_model(spec), tmp_path / "model.onnx")

    with pytest.raises(MsfnetError, match=r"calibrated for CPUs.* for the target tensorrt"):
        build_engine(tmp_path / "model.onnx", tmp_path / "model.engine")


def test_an_input_is_never_the_engine(model: Path, tmp_path: Path) -> None:
    """The suffix of a file does not tell what it is."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    model = model.rename(tmp_path / "model.engine")

    with pytest.raises(MsfnetError, match=r"model\.engine is read"):
        build_engine(model, model)


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
    """Strong typing forbids them; the error names the node after its module."""
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
    """The error comes when the file is saved, without TensorRT."""
    with pytest.raises(MsfnetError, match=r"types or shapes do not fit: .*usf\.rdr\.join"):
        save_model(ir.from_proto(mixed("Add")), tmp_path / "model.onnx", network_spec())
    assert not list(tmp_path.iterdir())


@needs_rtx
def test_a_graph_tensorrt_refuses_gives_its_reason(tmp_path: Path) -> None:
    """An operator that TensorRT does not support; no engine and no manifest are left."""
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
    ("architecture", "message"), [("sm90", "choose from sm75"), ("gtx", "cannot build for 'gtx'")]
)
def test_an_error_about_an_unknown_architecture_lists_the_known_ones(
    model: Path, tmp_path: Path, architecture: str, message: str
) -> None:
    """TensorRT for RTX has no data-centre GPUs."""
    with pytest.raises(MsfnetError, match=message):
        build_engine(
            model, tmp_path / "model.engine", options=BuildOptions(architectures=(architecture,))
        )


def test_a_missing_library_is_named(model: Path, tmp_path: Path) -> None:
    """The error names the extra that installs TensorRT."""
    if importlib.util.find_spec("tensorrt"):
        pytest.skip("tensorrt is installed here")
    with pytest.raises(MsfnetError, match=r"msfnet\[tensorrt\]"):
        build_engine(model, tmp_path / "model.engine", flavour="tensorrt")


def test_an_engine_needs_an_engines_suffix(model: Path, tmp_path: Path) -> None:
    """``open_engine`` recognises engines by their suffix."""
    with pytest.raises(MsfnetError, match=r"does not end in \.engine"):
        build_engine(model, tmp_path / "model.bin")


@pytest.mark.parametrize("content", [b"", b"not a model", np.arange(64, dtype=np.uint8).tobytes()])
def test_a_file_that_is_not_a_model_is_refused(tmp_path: Path, content: bytes) -> None:
    """Empty, text, and bytes."""
    (tmp_path / "model.onnx").write_bytes(content)

    with pytest.raises(MsfnetError, match=r"model\.onnx"):
        build_engine(tmp_path / "model.onnx", tmp_path / "model.engine")
