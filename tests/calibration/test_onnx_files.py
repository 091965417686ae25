from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from msfnet_calibration.graph import count_operators, count_parameters
from msfnet_calibration.onnx_files import load_model, save_model
from msfnet_runtime import MsfnetError, OnnxArtifact
from tests.onnx_models import conv_model, typed
from tests.specs import network_spec


def test_a_saved_model_is_read_back_with_its_new_spec(tmp_path: Path) -> None:
    """The new spec replaces the one the model had."""
    spec = network_spec(dataset="another")

    save_model(typed(conv_model(network_spec())), tmp_path / "model.onnx", spec)

    assert OnnxArtifact.read(tmp_path / "model.onnx").spec == spec
    assert len(onnx.load(tmp_path / "model.onnx").metadata_props) == 1


def test_counts_are_those_of_the_graph(tmp_path: Path) -> None:
    """One convolution of 12 weights and a bias."""
    model = typed(conv_model(network_spec()))

    assert count_operators(model) == {"Conv": 1}
    assert count_parameters(model) == 13


def test_an_invalid_model_is_neither_read_nor_written(tmp_path: Path) -> None:
    """A convolution without inputs; the target is left as it was."""
    broken = conv_model(network_spec())
    del broken.graph.node[0].input[:]
    onnx.save(broken, tmp_path / "broken.onnx")
    (tmp_path / "kept.onnx").write_bytes(b"kept")

    with pytest.raises(MsfnetError, match="not a valid ONNX model"):
        load_model(tmp_path / "broken.onnx")
    with pytest.raises(onnx.checker.ValidationError):
        save_model(ir.from_proto(broken), tmp_path / "kept.onnx", network_spec())
    assert (tmp_path / "kept.onnx").read_bytes() == b"kept"


def test_a_graph_with_graphs_inside_is_refused(tmp_path: Path) -> None:
    """An If: the shapes of what it holds are not inferred, and msfnet writes none."""
    model = conv_model(network_spec())
    name = model.graph.output[0].name
    model.graph.node[0].output[0] = "convolved"
    branches = [
        onnx.helper.make_graph(
            [onnx.helper.make_node("Identity", ["convolved"], [branch])],
            branch,
            [],
            [onnx.helper.make_tensor_value_info(branch, onnx.TensorProto.FLOAT, None)],
        )
        for branch in ("then", "else")
    ]
    model.graph.node.append(
        onnx.helper.make_node(
            "If", ["always"], [name], then_branch=branches[0], else_branch=branches[1]
        )
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))
    onnx.save(model, tmp_path / "model.onnx")

    with pytest.raises(MsfnetError, match="inside an If or a Loop"):
        load_model(tmp_path / "model.onnx")


@pytest.mark.parametrize(("offset", "location"), [("-4", "w.data"), ("0", "../w.data"), ("0", "")])
def test_weights_outside_their_file_are_refused(tmp_path: Path, offset: str, location: str) -> None:
    """Before the file, in another folder, and in none."""
    model = conv_model(network_spec())
    weight = model.graph.initializer[0]
    (tmp_path / "w.data").write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", "48")):
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())

    with pytest.raises(MsfnetError, match=r"not a valid ONNX model|the location of weights"):
        load_model(tmp_path / "model.onnx")


@pytest.mark.parametrize("content", [b"", b"\x08\x0a\x12", b"plain text, no protobuf at all"])
def test_a_file_that_is_not_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    """Empty, cut off, and text: one line with the file's name."""
    (tmp_path / "model.onnx").write_bytes(content)

    with pytest.raises(MsfnetError, match=r"model\.onnx"):
        load_model(tmp_path / "model.onnx")


def beside(path: Path, weight: float) -> str:
    """Write a model of 16 kB of equal weights beside its file, and return their file's name."""
    model = conv_model(network_spec())
    wide = np.full((1, 3, 2, 2), weight, np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(wide, "weight"))
    large = numpy_helper.from_array(np.full((64, 64), weight, np.float32), "large")
    model.graph.initializer.append(large)
    save_model(typed(model), path, network_spec(), beside=True)
    return OnnxArtifact.read(path).spec.weights_file


def test_replacing_a_model_removes_its_weights_only_if_no_copy_refers_to_them(
    tmp_path: Path,
) -> None:
    """A copy of the file, and a backup of any name, keep working; the last one's weights go."""
    first = beside(tmp_path / "model.onnx", 1.0)
    shutil.copy(tmp_path / "model.onnx", tmp_path / "release.onnx.bak")

    second = beside(tmp_path / "model.onnx", 2.0)
    third = beside(tmp_path / "model.onnx", 3.0)

    assert (tmp_path / first).exists()
    assert not (tmp_path / second).exists()
    (tmp_path / "release.onnx.bak").rename(tmp_path / "release.onnx")
    assert load_model(tmp_path / "release.onnx").graph.initializers["large"].const_value is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [first, third, "model.onnx", "release.onnx"]
    )


@pytest.mark.parametrize("name", ["thesis.ckpt", "other.0123456789ab.data", "model.onnx"])
def test_replacing_a_model_never_removes_what_its_spec_names(tmp_path: Path, name: str) -> None:
    """A spec from elsewhere can name any neighbour as the file of its weights."""
    spec = network_spec(weights_file=name)
    onnx.save(conv_model(spec), tmp_path / "model.onnx")
    if name != "model.onnx":
        (tmp_path / name).write_bytes(b"somebody else's")

    save_model(typed(conv_model(network_spec())), tmp_path / "model.onnx", network_spec())

    assert name == "model.onnx" or (tmp_path / name).read_bytes() == b"somebody else's"
    assert OnnxArtifact.read(tmp_path / "model.onnx").spec == network_spec()


def test_a_replaced_model_passes_on_its_mode(tmp_path: Path) -> None:
    """As every file that is replaced."""
    beside(tmp_path / "model.onnx", 1.0)
    (tmp_path / "model.onnx").chmod(0o640)

    beside(tmp_path / "model.onnx", 2.0)

    assert (tmp_path / "model.onnx").stat().st_mode & 0o777 == 0o640


def filled() -> onnx.ModelProto:
    """Return a model that fills ten thousand million numbers at run time."""
    model = conv_model(network_spec())
    model.graph.node[0].output[0] = "once"
    sides = numpy_helper.from_array(np.array([100_000, 100_000]), "sides")
    model.graph.initializer.append(sides)
    model.graph.node.extend(
        [
            helper.make_node("ConstantOfShape", ["sides"], ["huge"]),
            helper.make_node("ReduceMean", ["huge"], ["mean"], keepdims=0),
            helper.make_node("Add", ["once", "mean"], ["prediction"]),
        ]
    )
    return model


def test_a_graph_that_fills_the_memory_is_refused(tmp_path: Path) -> None:
    """Its shapes are known before it runs."""
    (tmp_path / "model.onnx").write_bytes(filled().SerializeToString())

    with pytest.raises(MsfnetError, match="huge has the shape 100000x100000"):
        load_model(tmp_path / "model.onnx")
