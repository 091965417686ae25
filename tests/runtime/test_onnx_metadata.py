"""The spec is read from an ONNX file without the onnx package, and as that package reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from msfnet_runtime import MsfnetError
from msfnet_runtime.onnx_metadata import read_graph, read_onnx_metadata, read_onnx_spec
from msfnet_runtime.precision_records import CalibrationRecord
from msfnet_runtime.spec import Precision
from tests.onnx_models import conv_model, quantized_conv_model
from tests.specs import network_spec


def test_the_metadata_is_what_the_onnx_package_reads(tmp_path: Path) -> None:
    """Long and non-ASCII values included."""
    model = conv_model(network_spec())
    entry = model.metadata_props.add()
    entry.key, entry.value = "note", "größer" * 1000
    onnx.save(model, tmp_path / "model.onnx")

    theirs = {p.key: p.value for p in onnx.load(tmp_path / "model.onnx").metadata_props}

    assert read_onnx_metadata(tmp_path / "model.onnx") == theirs


def test_the_embedded_spec_is_the_spec(tmp_path: Path) -> None:
    """A device reads the spec that was saved."""
    spec = network_spec(dataset="größer")
    onnx.save(conv_model(spec), tmp_path / "model.onnx")

    assert read_onnx_spec(tmp_path / "model.onnx") == spec


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_file_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    """It ends at the start, inside the weights, or inside the metadata."""
    onnx.save(conv_model(network_spec()), tmp_path / "whole.onnx")
    content = (tmp_path / "whole.onnx").read_bytes()
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(content[: int(len(content) * share)])

    with pytest.raises(MsfnetError, match=r"cut\.onnx"):
        read_onnx_spec(cut)


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n" + bytes(99), b"hello world" * 50])
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """An image or a text under the wrong name."""
    (tmp_path / "model.onnx").write_bytes(content)

    with pytest.raises(MsfnetError, match="ONNX file"):
        read_onnx_spec(tmp_path / "model.onnx")


def test_a_foreign_onnx_file_is_told_how_it_gets_a_spec(tmp_path: Path) -> None:
    """Models of other programs lack what is needed to read their answer."""
    model = conv_model(network_spec())
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")

    with pytest.raises(MsfnetError, match="msfnet export"):
        read_onnx_spec(tmp_path / "foreign.onnx")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    """Both are common slips."""
    with pytest.raises(MsfnetError, match="does not exist"):
        read_onnx_spec(tmp_path / "absent.onnx")
    with pytest.raises(MsfnetError, match="is a folder"):
        read_onnx_spec(tmp_path)


def converted(model: onnx.ModelProto, kind: int) -> onnx.ModelProto:
    """Store a model's weights in another type, as a converter does that knows no spec."""
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(
            helper.make_tensor(tensor.name, kind, values.shape, values.ravel().tolist())
        )
    return model


@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        (TensorProto.FLOAT, "fp32"),
        (TensorProto.FLOAT16, "fp16"),
        (TensorProto.BFLOAT16, "bf16"),
        (TensorProto.DOUBLE, "fp64"),
    ],
)
def test_the_precision_is_that_of_the_weights(
    tmp_path: Path, kind: int, precision: Precision, caplog: pytest.LogCaptureFixture
) -> None:
    """A label of another precision, and what is recorded with it, do not count; a line says so."""
    spec = network_spec(precision="int8", calibration=CalibrationRecord("minmax", "cpu", 1, 4))
    onnx.save(converted(conv_model(spec), kind), tmp_path / "model.onnx")

    found = read_onnx_spec(tmp_path / "model.onnx")

    assert found == replace(spec, precision=precision, calibration=None)
    assert f"model.onnx is labelled int8, but its weights are {precision}" in caplog.text


@pytest.mark.parametrize("place", ["initialiser", "constant node", "behind a cast"])
def test_weights_count_wherever_they_are_stored(tmp_path: Path, place: str) -> None:
    """Half floats as an initialiser, in a node of their own, and cast before they are used."""
    model = converted(conv_model(network_spec()), TensorProto.FLOAT16)
    weight = model.graph.initializer[0]
    if place == "constant node":
        weight.name = ""
        node = helper.make_node("Constant", [], ["weight"], value=weight)
        model.graph.node.insert(0, node)
        del model.graph.initializer[0]
    elif place == "behind a cast":
        weight.name = "half"
        node = helper.make_node("Cast", ["half"], ["weight"], to=TensorProto.FLOAT)
        model.graph.node.insert(0, node)
    onnx.save(model, tmp_path / "model.onnx")

    assert read_graph(tmp_path / "model.onnx").precision == "fp16"


@pytest.mark.parametrize(
    ("operator", "precision"),
    [("QuantizeLinear", "int8"), ("QLinearConv", "int8"), ("ConvInteger", "int8"), ("Conv", None)],
)
def test_quantised_operators_make_an_int8_model(
    tmp_path: Path, operator: str, precision: str | None
) -> None:
    """Whatever the types of the constants; a product of two values has no precision of its own."""
    node = helper.make_node(operator, ["image", "prediction"], ["x"])
    model = conv_model(network_spec())
    del model.graph.node[:]
    model.graph.node.append(node)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())

    assert read_graph(tmp_path / "model.onnx").precision == precision


def test_pairs_of_eight_bit_floats_are_named_by_their_zero_point(tmp_path: Path) -> None:
    """They are the same operators as INT8's."""
    model = quantized_conv_model(network_spec())
    model.graph.node[0].input.append("zero")
    model.graph.initializer.append(helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, (), [0]))
    model.graph.initializer[0].data_type = TensorProto.FLOAT8E4M3FN
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())

    assert read_graph(tmp_path / "model.onnx").precision == "fp8"


def beside(locations: Sequence[str]) -> bytes:
    """Return a model whose two constants lie in other files."""
    model = conv_model(network_spec(weights_file="thesis.ckpt"))
    for tensor, location in zip(model.graph.initializer, locations, strict=True):
        tensor.data_location = TensorProto.EXTERNAL
        tensor.ClearField("raw_data")
        tensor.external_data.add(key="location", value=location)
    return bytes(model.SerializeToString())


def test_the_file_of_weights_is_the_one_that_the_graph_reads(tmp_path: Path) -> None:
    """What the spec names is ignored: other programs write weights elsewhere."""
    (tmp_path / "model.onnx").write_bytes(beside(["model.data", "model.data"]))

    assert read_onnx_spec(tmp_path / "model.onnx").weights_file == "model.data"


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "sub/w", "..", "", "a\\b", "b\0"])
def test_weights_of_another_folder_are_refused(tmp_path: Path, location: str) -> None:
    """A file from elsewhere could read any file of this machine as its weights."""
    (tmp_path / "model.onnx").write_bytes(beside([location, location]))

    with pytest.raises(MsfnetError, match=r"model\.onnx: the location of weights must be"):
        read_onnx_spec(tmp_path / "model.onnx")


def test_weights_in_several_files_are_refused(tmp_path: Path) -> None:
    """A copy of the model would miss some of them."""
    (tmp_path / "model.onnx").write_bytes(beside(["a.data", "b.data"]))

    with pytest.raises(MsfnetError, match="in 2 files"):
        read_onnx_spec(tmp_path / "model.onnx")
