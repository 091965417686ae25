"""The output of ``msfnet triton`` is compared with Triton's schema and served to its client."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import json_format, text_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from msfnet_export import export_network
from msfnet_export.triton import write_triton_model
from msfnet_export.triton_config import TritonOptions
from msfnet_runtime import DepthEstimator, EngineArtifact, Frame, ModelSpec, MsfnetError
from msfnet_runtime.spec import TensorSpec
from tests.manifests import write_engine
from tests.networks import FRAME_SIZE, Exports, Strided
from tests.onnx_models import conv_model
from tests.specs import deploy_spec, network_spec

grpc = pytest.importorskip("grpc")  # tritonclient[grpc] brings it, without types


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export the smallest network with batch and size open."""
    path = tmp_path_factory.mktemp("dynamic") / "open.onnx"
    export_network(Strided(), path, size=(64, 96), spec=network_spec(), dynamic=("batch", "size"))
    return path


def parse(folder: Path) -> model_config_pb2.ModelConfig:
    """Read a written configuration as the server does."""
    text = (folder / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def expect(text: str, spec: ModelSpec) -> model_config_pb2.ModelConfig:
    """Return the configuration written here by hand, with a spec as its parameter."""
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    config.parameters["msfnet_spec"].string_value = spec.to_json()
    return config


def plan(folder: Path, **changes: Any) -> EngineArtifact:
    """Write an engine of flavour ``tensorrt``."""
    artifact = replace(write_engine(folder), flavour="tensorrt", version="10.13.3.9", **changes)
    artifact.write()
    return artifact


def test_a_fixed_graph_keeps_its_batch_in_its_shape(exports: Exports, tmp_path: Path) -> None:
    """Every field, as the schema of the server's release 2.73 of the client reads it."""
    artifact = exports.deploy.artifact
    made = write_triton_model(artifact.path, tmp_path, options=TritonOptions(name="depth"))

    height, width = FRAME_SIZE
    expected = expect(
        f"""
        name: "depth" platform: "onnxruntime_onnx" max_batch_size: 0
        default_model_filename: "model.onnx"
        input {{ name: "frame" data_type: TYPE_UINT8 dims: [1, {height}, {width}, 3] }}
        output {{ name: "depth" data_type: TYPE_FP32 dims: [1, 1, {height}, {width}] }}
        instance_group {{ count: 1 kind: KIND_GPU }}
        model_warmup {{
          name: "batch of 1" batch_size: 1
          inputs {{
            key: "{artifact.spec.inputs[0].name}"
            value {{
              data_type: TYPE_UINT8 dims: [1, {height}, {width}, 3]
              input_data_file: "deploy_input.raw"
            }}
          }}
        }}
        """,
        artifact.spec,
    )
    assert parse(made.path) == expected
    assert (made.path / "1/model.onnx").read_bytes() == artifact.path.read_bytes()
    assert ModelSpec.from_json(parse(made.path).parameters["msfnet_spec"].string_value) == (
        artifact.spec
    )


def test_an_open_graph_leaves_its_batch_to_the_server(dynamic: Path, tmp_path: Path) -> None:
    """Shapes without it, open sides as -1, and the batching that was asked for."""
    options = TritonOptions(
        name="depth",
        version=7,
        max_batch_size=6,
        max_queue_delay_us=500,
        preferred_batch_sizes=(2, 4),
        instances=2,
        gpus=(0, 3),
    )
    made = write_triton_model(dynamic, tmp_path, options=options)

    config = parse(made.path)
    warmup = [
        f"""model_warmup {{ name: "batch of {count}" batch_size: {count} inputs {{
          key: "image" value {{
            data_type: TYPE_FP32 dims: [3, 64, 96] input_data_file: "network_input.raw" }} }} }}"""
        for count in (1, 6)
    ]
    expected = expect(
        f"""
        name: "depth" platform: "onnxruntime_onnx" max_batch_size: 6
        default_model_filename: "model.onnx"
        input {{ name: "image" data_type: TYPE_FP32 dims: [3, -1, -1] }}
        output {{ name: "prediction" data_type: TYPE_FP32 dims: [1, -1, -1] }}
        instance_group {{ count: 2 kind: KIND_GPU gpus: [0, 3] }}
        dynamic_batching {{ preferred_batch_size: [2, 4] max_queue_delay_microseconds: 500 }}
        {" ".join(warmup)}
        """,
        ModelSpec.from_json(config.parameters["msfnet_spec"].string_value),
    )
    assert config == expected
    assert (made.path / "7/model.onnx").exists()


def test_a_plan_takes_the_batches_and_profiles_of_its_engine(tmp_path: Path) -> None:
    """The largest batch is the engine's own; every profile is used, not just the first."""
    spec = network_spec(
        inputs=(TensorSpec("image", "float32", ("batch", 3, "height", "width")),),
        outputs=(
            TensorSpec("prediction", "float32", ("batch", 1, "height/2", "width/2"), "depth"),
        ),
    )
    profiles = (
        ((1, 3, 32, 32), (1, 3, 96, 128), (2, 3, 192, 256)),
        ((1, 3, 32, 32), (4, 3, 64, 64), (5, 3, 64, 64)),
    )
    engine = plan(tmp_path, spec=spec, profiles=profiles)
    made = write_triton_model(engine.path, tmp_path / "models")
    config = parse(made.path)

    assert (config.platform, config.max_batch_size) == ("tensorrt_plan", 5)
    assert list(config.instance_group[0].profile) == ["0", "1"]
    assert config.HasField("dynamic_batching")
    assert list(config.model_warmup[0].inputs["image"].dims) == [3, 96, 128]
    assert (made.path / "1/model.plan").read_bytes() == engine.path.read_bytes()
    assert "TensorRT 10.13.3.9" in (tmp_path / "models/README.md").read_text()


def test_a_version_compatible_engine_names_the_servers_option(tmp_path: Path) -> None:
    """Which Triton wants before it loads an engine of an earlier TensorRT."""
    engine = plan(tmp_path, options={"version_compatible": True})
    write_triton_model(engine.path, tmp_path / "models")

    readme = (tmp_path / "models/README.md").read_text()
    assert "--backend-config=tensorrt,version-compatible=true" in readme


@pytest.mark.parametrize("graph", ["plain", "deploy"])
def test_the_warm_up_frame_is_one_the_model_answers(
    graph: str, exports: Exports, tmp_path: Path
) -> None:
    """Its size is the one of the configuration, and its pixels differ."""
    artifact = getattr(exports, graph).artifact
    made = write_triton_model(artifact.path, tmp_path)
    (entry,) = parse(made.path).model_warmup
    sample = entry.inputs[artifact.spec.inputs[0].name]

    raw = np.fromfile(made.path / "warmup" / sample.input_data_file, artifact.spec.inputs[0].dtype)
    with DepthEstimator.open(artifact.path) as estimator:
        depth = estimator.infer(raw.reshape(list(sample.dims)))

    assert raw.std() > 0.05 * np.ptp(raw)
    assert np.isfinite(depth).all()


def test_no_warm_up_leaves_no_trace(exports: Exports, tmp_path: Path) -> None:
    """Neither in the configuration nor as a file; a CPU model asks for no GPU."""
    options = TritonOptions(warmup=False, kind="cpu", instances=3)
    made = write_triton_model(exports.plain.artifact.path, tmp_path, options=options)
    config = parse(made.path)

    assert not config.model_warmup
    assert not (made.path / "warmup").exists()
    assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_CPU
    assert config.instance_group[0].count == 3
    assert "--gpus" not in (tmp_path / "README.md").read_text()


def test_weights_beside_the_model_are_copied_under_their_own_name(
    exports: Exports, tmp_path: Path
) -> None:
    """The ONNX file refers to them by it."""
    model = onnx.load(exports.plain.artifact.path)
    spec = replace(exports.plain.artifact.spec, weights_file="abc.data")
    onnx.helper.set_model_props(model, {"msfnet_spec": spec.to_json()})
    onnx.save(
        model, tmp_path / "big.onnx", save_as_external_data=True, location="abc.data",
        size_threshold=1024,
    )  # fmt: skip
    made = write_triton_model(tmp_path / "big.onnx", tmp_path / "models")

    session = onnxruntime.InferenceSession(made.path / "1/model.onnx")
    assert session.get_inputs()[0].name == "image"
    assert {path.name for path in (made.path / "1").iterdir()} == {"model.onnx", "abc.data"}


def test_strings_survive_protobufs_text_format(exports: Exports, tmp_path: Path) -> None:
    """Quotes, backslashes and umlauts in a spec."""
    nasty = 'a "quoted" \\path\\n Größe 深度'
    spec = replace(exports.plain.artifact.spec, licence=nasty)
    model = onnx.load(exports.plain.artifact.path)
    model.graph.input[0].name = model.graph.node[0].input[0] = 'im"age\\ü'
    spec = replace(spec, inputs=(replace(spec.inputs[0], name='im"age\\ü'),))
    onnx.helper.set_model_props(model, {"msfnet_spec": spec.to_json()})
    onnx.save(model, tmp_path / "nasty.onnx")
    config = parse(write_triton_model(tmp_path / "nasty.onnx", tmp_path / "models").path)

    parameter = config.parameters["msfnet_spec"].string_value
    assert ModelSpec.from_json(parameter).licence == nasty
    assert config.input[0].name == 'im"age\\ü'


def test_other_models_stay_when_one_is_added_or_replaced(exports: Exports, tmp_path: Path) -> None:
    """The README shows all of them; a replaced model keeps nothing of the old one."""
    first = write_triton_model(exports.plain.artifact.path, tmp_path, options=TritonOptions("one"))
    before = {path: path.stat().st_mtime_ns for path in first.path.rglob("*")}
    second = TritonOptions("two", version=2)
    write_triton_model(exports.deploy.artifact.path, tmp_path, options=second)
    with pytest.raises(MsfnetError, match="exists already"):
        write_triton_model(exports.plain.artifact.path, tmp_path, options=TritonOptions("two"))
    write_triton_model(
        exports.plain.artifact.path, tmp_path, options=TritonOptions("two"), force=True
    )

    assert {path: path.stat().st_mtime_ns for path in first.path.rglob("*")} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "one", "two"]
    assert not (tmp_path / "two/2").exists()
    assert (tmp_path / "two/1/model.onnx").exists()
    headings = re.findall(r"^## (.+)$", (tmp_path / "README.md").read_text(), re.MULTILINE)
    assert headings == ["Start the server", "one", "two"]


def test_what_is_no_model_is_never_replaced(exports: Exports, tmp_path: Path) -> None:
    """A folder of something else, a file, a project's README; not even by force."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src/code.py").write_text("precious")
    (tmp_path / "notes").write_text("precious")
    for name in ("src", "notes"):
        with pytest.raises(MsfnetError, match="not a Triton model"):
            write_triton_model(
                exports.plain.artifact.path, tmp_path, options=TritonOptions(name), force=True
            )
    (tmp_path / "README.md").write_text("# My project\n")
    with pytest.raises(MsfnetError, match=r"README\.md"):
        write_triton_model(exports.plain.artifact.path, tmp_path, force=True)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "notes", "src"]
    assert (tmp_path / "README.md").read_text() == "# My project\n"


def test_a_failed_write_leaves_the_old_model(
    exports: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not half of the new one."""
    made = write_triton_model(exports.plain.artifact.path, tmp_path, options=TritonOptions("one"))
    before = (made.path / "config.pbtxt").read_text()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("msfnet_export.triton.shutil.copyfile", full)
    with pytest.raises(MsfnetError, match="make room"):
        write_triton_model(
            exports.deploy.artifact.path, tmp_path, options=TritonOptions("one"), force=True
        )

    assert (made.path / "config.pbtxt").read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "one"]


REFUSED = {
    "fixed batch": (TritonOptions(max_batch_size=4), "open batch"),
    "queue": (TritonOptions(max_queue_delay_us=100), "open batch"),
    "preferred": (TritonOptions(preferred_batch_sizes=(2,)), "open batch"),
    "name": (TritonOptions(name="a/b"), "a/b"),
    "hidden": (TritonOptions(name=".depth"), ".depth"),
    "cpu and gpus": (TritonOptions(kind="cpu", gpus=(0,)), "GPUs"),
    "gpu twice": (TritonOptions(gpus=(1, 1)), "twice"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_fixed_model_cannot_follow_is_refused(
    case: str, exports: Exports, tmp_path: Path
) -> None:
    """The error is one line, and nothing is written."""
    options, words = REFUSED[case]
    with pytest.raises(MsfnetError, match=re.escape(words)) as error:
        write_triton_model(exports.plain.artifact.path, tmp_path / "models", options=options)

    assert "\n" not in str(error.value)
    assert not (tmp_path / "models").exists()


def test_batches_are_held_against_the_largest(dynamic: Path, tmp_path: Path) -> None:
    """A preferred batch may not exceed it, and one image is not a batch."""
    with pytest.raises(MsfnetError, match="between 1 and the largest batch, 4"):
        write_triton_model(
            dynamic, tmp_path, options=TritonOptions(max_batch_size=4, preferred_batch_sizes=(8,))
        )
    with pytest.raises(MsfnetError, match="nothing to batch"):
        write_triton_model(
            dynamic, tmp_path, options=TritonOptions(max_batch_size=1, max_queue_delay_us=1)
        )


def test_engines_the_server_cannot_run_are_refused(tmp_path: Path) -> None:
    """TensorRT for RTX, stripped weights, another file, the CPU, batches beyond the profile."""
    rtx = write_engine(tmp_path)
    with pytest.raises(MsfnetError, match="flavour tensorrt"):
        write_triton_model(rtx.path, tmp_path / "models")
    with pytest.raises(MsfnetError, match="no weights"):
        write_triton_model(
            plan(tmp_path, options={"strip_weights": True}).path, tmp_path / "models"
        )
    with pytest.raises(MsfnetError, match="SHA-256"):
        write_triton_model(plan(tmp_path, engine_sha256="0" * 64).path, tmp_path / "models")
    with pytest.raises(MsfnetError, match="kind gpu"):
        write_triton_model(
            plan(tmp_path).path, tmp_path / "models", options=TritonOptions(kind="cpu")
        )
    spec = network_spec(inputs=(TensorSpec("image", "float32", ("batch", 3, 32, 64)),))
    profile = ((1, 3, 32, 64), (1, 3, 32, 64), (2, 3, 32, 64))
    with pytest.raises(MsfnetError, match="batches of 1 to 2, the server asks for 1 to 3"):
        write_triton_model(
            plan(tmp_path, spec=spec, profiles=(profile,)).path,
            tmp_path / "models",
            options=TritonOptions(max_batch_size=3),
        )
    assert not (tmp_path / "models").exists()


def test_a_type_triton_lacks_is_refused(tmp_path: Path) -> None:
    """The error names the tensor's type."""
    spec = deploy_spec(inputs=(TensorSpec("frame", "complex64", (1, 48, 80, 3)),))
    with pytest.raises(MsfnetError, match="complex64"):
        write_triton_model(plan(tmp_path, spec=spec).path, tmp_path / "models")


class Server(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # no types
    """Answers as Triton does: checks a request against config.pbtxt and runs the model's file."""

    def __init__(self, folder: Path) -> None:
        self.config = parse(folder)
        self.session = onnxruntime.InferenceSession(folder / "1/model.onnx")

    def ModelConfig(self, request: object, context: object) -> object:  # noqa: N802 - of the protocol
        """Return what the file says."""
        return service_pb2.ModelConfigResponse(config=self.config)

    def ModelInfer(self, request: service_pb2.ModelInferRequest, context: object) -> object:  # noqa: N802 - of the protocol
        """Run one request, which must be as the file says."""
        (sent,), (declared,) = request.inputs, self.config.input
        batch = [-1] if self.config.max_batch_size else []
        name = model_config_pb2.DataType.Name(declared.data_type).removeprefix("TYPE_")
        assert (request.model_name, sent.name, sent.datatype) == (
            self.config.name, declared.name, name,
        )  # fmt: skip
        wanted = [*batch, *declared.dims]
        assert len(wanted) == len(sent.shape)
        assert all(want in {-1, got} for want, got in zip(wanted, sent.shape, strict=True))
        dtype = {"UINT8": np.uint8, "FP32": np.float32}[name]
        array = np.frombuffer(request.raw_input_contents[0], dtype).reshape(sent.shape)
        asked = [output.name for output in request.outputs]
        assert asked == [output.name for output in self.config.output]
        (answer,) = self.session.run(asked, {sent.name: array})
        response = service_pb2.ModelInferResponse(model_name=request.model_name)
        response.outputs.add(name=asked[0], datatype="FP32", shape=answer.shape)
        response.raw_output_contents.append(answer.tobytes())
        return response


@contextmanager
def serving(folder: Path) -> Iterator[int]:
    """Serve a model on a free port of this machine."""
    server = grpc.server(ThreadPoolExecutor(1))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Server(folder), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize("graph", ["plain", "deploy", "dynamic"])
def test_the_readmes_client_reads_metres_from_a_server(
    graph: str,
    exports: Exports,
    dynamic: Path,
    tmp_path: Path,
    photo: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its code is run as it stands, over gRPC, against a stand-in that runs the model."""
    model = dynamic if graph == "dynamic" else getattr(exports, graph).artifact.path
    made = write_triton_model(model, tmp_path / "models", options=TritonOptions("depth"))
    readme = (tmp_path / "models/README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.+?)```", readme, re.DOTALL)
    cv2.imwrite(str(tmp_path / "frame.png"), cv2.cvtColor(photo, cv2.COLOR_RGB2BGR))
    monkeypatch.chdir(tmp_path)

    names: dict[str, object] = {}
    with serving(made.path) as port:
        exec(code.replace("localhost:8001", f"127.0.0.1:{port}"), names)  # the README's own words
    with DepthEstimator.open(model) as estimator:
        expected = estimator(Frame(photo)).values

    depth = np.asarray(names["depth"])
    assert depth.shape == photo.shape[:2]
    assert np.ptp(depth) > 0
    np.testing.assert_allclose(depth, expected, rtol=1e-5)
    assert f"{depth.min():.2f} to {depth.max():.2f} m" in capsys.readouterr().out


def test_the_writer_needs_no_heavy_library(tmp_path: Path) -> None:
    """A repository is written on a device without torch, onnx or protobuf."""
    script = f"""
import sys
for name in ("torch", "onnx", "onnxruntime", "google.protobuf", "tritonclient", "timm"):
    sys.modules[name] = None
from msfnet_export.triton import write_triton_model
write_triton_model({str(plan(tmp_path).path)!r}, {str(tmp_path / "models")!r})
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
    config = json_format.MessageToDict(parse(tmp_path / "models/model"))

    assert config["input"][0]["dims"] == ["1", "3", "32", "64"]


KILLED = """
import os, shutil, signal, sys
from msfnet_export.triton import write_triton_model
shutil.copyfile = lambda source, target: os.kill(os.getpid(), signal.SIGKILL)
write_triton_model(sys.argv[1], sys.argv[2])
"""


def test_what_a_killed_run_leaves_is_removed_by_the_next(tmp_path: Path) -> None:
    """A killed process leaves a hidden folder, and no model; the next run removes it."""
    model = tmp_path / "depth.onnx"
    onnx.save(conv_model(network_spec()), model)
    repository = tmp_path / "models"

    subprocess.run([sys.executable, "-c", KILLED, str(model), str(repository)], check=False)
    left = [path.name for path in repository.iterdir()]
    write_triton_model(model, repository)

    assert len(left) > 0
    assert all(name.startswith(".depth.") for name in left)
    assert sorted(path.name for path in repository.iterdir()) == ["README.md", "depth"]
