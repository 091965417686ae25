from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

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


@pytest.mark.parametrize("content", [b"", b"\x08\x0a\x12", b"plain text, no protobuf at all"])
def test_a_file_that_is_not_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    """Empty, cut off, and text: one line with the file's name."""
    (tmp_path / "model.onnx").write_bytes(content)

    with pytest.raises(MsfnetError, match=r"model\.onnx"):
        load_model(tmp_path / "model.onnx")
