"""The spec is read from an ONNX file without the onnx package, and as that package reads it."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from msfnet_runtime import MsfnetError
from msfnet_runtime.onnx_metadata import read_onnx_metadata, read_onnx_spec
from tests.onnx_models import conv_model
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
    spec = network_spec(precision="fp16")
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
