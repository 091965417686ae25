"""The spec survives its journey inside a file, and refuses what no runtime could act on."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from msfnet_runtime import (
    Block,
    ModelSpec,
    MsfnetError,
    NormalisedIntrinsics,
    Resize,
    Scale,
    TensorSpec,
)
from msfnet_runtime.precision_records import (
    CalibrationRecord,
    DepthChange,
    Fp32Island,
    FrameSummary,
    SearchRecord,
)
from msfnet_runtime.preprocess import prepare
from msfnet_runtime.spec import GoldenRecord
from tests.specs import deploy_spec, network_spec

SCHEMA1 = Path(__file__).with_name("schema1")
"""Specs that msfnet wrote before schema 2: an INT8, an FP16 and a CPU export of one network."""

SUMMARY = FrameSummary(
    ("01ab", "23cd"), {"contrast": (1.0, 2.0, 3.5)}, ((1.0, 0.5), (0.5, 2.0)), 1.5
)

FULL = deploy_spec(
    inputs=(TensorSpec("frame", "uint8", ("batch", 48, 80, 3)),),
    outputs=(
        TensorSpec("depth", "float32", ("batch", 1, 48, 80), "depth"),
        TensorSpec("sigma", "float32", ("batch", 1, 48, 80), "uncertainty"),
        TensorSpec("mask", "float32", ("batch", 1, 48, 80), "validity"),
        TensorSpec("other", "float32", (1,)),
    ),
    depth_kind="inverse",
    inverse_scale=10.0,
    origin="https://example.org/network",
    licence="Apache-2.0",
    recipe="nyu_lite",
    ablation="usf",
    checkpoint_sha256="ab" * 32,
    git_revision="0123abc",
    resize=Resize("fit", (0.5, 0.4, 0.3), 14),
    camera=NormalisedIntrinsics(0.81, 1.08, 0.51, 0.53),
    scale=Scale(1.25, "calibrated"),
    opset=18,
    layout="cpu",
    weights_file="model.data",
    blocks=(
        Block("eda", ("encoder.stage3",), ("batch", 8, 6, 10), 5, 6, "int8+fp32", {"Conv": 2}),
    ),
    precision="int8",
    calibration=CalibrationRecord("entropy", "cpu", 12, 2, SUMMARY),
    change=DepthChange(1e-3, 2e-2, 2, random=True),
    islands=(Fp32Island("wide values", ("eda", "usf.rdr")),),
    search=SearchRecord("delta1 -0.003", -0.0021, "nyu_hu", 12, 1.5, "CPU"),
    golden=GoldenRecord("model.golden.npz", "cd" * 32, 1e-3),
    unproved=True,
)


def test_a_spec_comes_back_from_json_as_it_went_in() -> None:
    """Every field differs from its default and survives; no string holds JSON."""
    text = FULL.to_json()

    assert ModelSpec.from_json(text) == FULL
    assert [f.name for f in fields(FULL) if getattr(FULL, f.name) == f.default] == [
        "schema_version"
    ]
    assert "\\" not in text
    assert "\n" not in text


def test_the_prediction_range_of_inverse_depth_is_the_reciprocal_of_the_depth_range() -> None:
    """DenseDepth: 0.1 to 10 m is predicted as 100 to 1."""
    spec = network_spec(depth_kind="inverse", depth_range_m=(0.1, 10.0), inverse_scale=10.0)

    assert spec.prediction_range == pytest.approx((1.0, 100.0))


@pytest.mark.parametrize("depth_range", [(0.0, 10.0), (5.0, 5.0), (1.0, float("inf"))])
def test_a_depth_range_that_is_none_is_refused(depth_range: tuple[float, float]) -> None:
    """Zero, empty and infinite ranges would divide by zero or clamp nothing."""
    with pytest.raises(MsfnetError, match="range"):
        network_spec(depth_range_m=depth_range)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mean": [None, 0.5, 0.5]}, "mean"),
        ({"std": [0, 1, 1]}, "std"),
        ({"inverse_scale": None}, "inverse_scale"),
        ({"weights_file": "../model.data"}, "weights_file"),
        ({"outputs": [{"name": "a", "dtype": "float32", "shape": [1]}]}, "role depth"),
        ({"camera": {"fx": 0, "fy": 1, "cx": 0.5, "cy": 0.5}}, "focal"),
        ({"scale": {"factor": -1}}, "factor"),
        ({"resize": {"multiple": 0}}, "multiple"),
        ({"resize": {"policy": "squeeze"}}, r'resize\.policy .*"stretch", "fit", "crop"'),
        ({"size": [1, 2, 3]}, "size"),
        ({"size": [10**9, 10**9]}, "size of the network's input .*megapixels"),
        ({"size": [-1, -1]}, "size of the network's input"),
        ({"mean": [1e300, 0, 0]}, "mean must be -1e\\+06 to"),
        ({"std": [1e-300, 1, 1]}, "std must be 1e-06 to"),
        ({"inverse_scale": 5e-324}, "inverse_scale must be"),
        ({"depth_range_m": [1e-308, 1e308]}, "depth range"),
        ({"inputs": [{"name": "", "dtype": "float32", "shape": [1]}]}, "no name"),
        ({"inputs": [{"name": "a", "dtype": "object", "shape": [1]}]}, "a must have a type"),
        ({"inputs": [{"name": "a", "dtype": "foo", "shape": [1]}]}, "not 'foo'"),
        ({"inputs": [{"name": "a", "dtype": "uint8", "shape": [1, -3]}]}, "sizes from 1"),
        ({"inputs": [{"name": "a", "dtype": "uint8", "shape": [2**40, 9]}]}, "at most 2"),
        ({"weights_file": "/etc/passwd"}, "weights_file must be the name"),
        ({"weights_file": ".."}, "weights_file must be the name"),
        ({"golden": {"file": "../x", "sha256": "ab" * 32, "tolerance": 1}}, r"golden\.file"),
        ({"golden": {"file": "x", "sha256": "ab", "tolerance": 1}}, r"golden\.sha256"),
        ({"checkpoint_sha256": "no hash"}, "checkpoint_sha256"),
        ({"dataset": "\x1b]0;x\x07"}, r"dataset must be one line .*\\x1b"),
        ({"encoder": "one\ntwo"}, "encoder must be one line"),
        ({"licence": "\u202etxt"}, "licence must be one line"),
        ({"recipe": "a" * 20_000}, "recipe must be one line"),
        ({"opset": 10**18}, "opset must be 1 to 1000"),
        ({"resize": {"multiple": 10**9}}, r"resize\.multiple must be 1 to"),
        ({"resize": {"pad": [9, 0, 0]}}, r"resize\.pad must be 0 to 1"),
        ({"change": {"median": -1, "p99": 1, "images": 1}}, r"change\.median"),
        ({"change": {"median": None, "p99": 1, "images": 1}}, r"change\.median"),
        ({"notes": {}}, "unknown key notes"),
    ],
)
def test_values_no_runtime_could_act_on_are_refused(changes: dict[str, object], words: str) -> None:
    """The error is one line that names the field."""
    text = json.dumps({**json.loads(network_spec().to_json()), **changes})

    with pytest.raises(MsfnetError, match=words) as caught:
        ModelSpec.from_json(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (network_spec(inputs=()), "one input and one output"),
        (network_spec(inputs=(TensorSpec("a", "float32", ()),)), "Nx3xHxW"),
        (network_spec(inputs=(TensorSpec("a", "float32", (1, 32, 64, 3)),)), "1x32x64x3"),
        (network_spec(graph="deploy"), "NxHxWx3"),
        (deploy_spec(inputs=(TensorSpec("a", "uint8", (1, "h", 80, 3)),)), "fixed height"),
        (deploy_spec(inputs=(TensorSpec("a", "uint8", (1, 20_000, 20_000, 3)),)), "megapixels"),
    ],
)
def test_an_input_that_no_frame_fits_is_refused(spec: ModelSpec, words: str) -> None:
    """Before an engine or a Triton model is made of the file."""
    with pytest.raises(MsfnetError, match=words):
        spec.check_runnable()


@pytest.mark.parametrize(
    "spec", [network_spec(resize=Resize("crop")), deploy_spec(scale=Scale(2.0, "assumed"))]
)
def test_what_is_not_executed_yet_is_refused_before_a_frame_is_prepared(spec: ModelSpec) -> None:
    """A wrong depth would be the alternative."""
    with pytest.raises(MsfnetError, match=r"crop|scales depth by 2"):
        prepare(np.zeros((48, 80, 3), np.uint8), spec)


def test_a_newer_schema_is_refused_by_its_number() -> None:
    """A file from the future says so instead of being half understood."""
    future = json.dumps({**json.loads(network_spec().to_json()), "schema_version": 3})

    with pytest.raises(MsfnetError, match="schema version 3"):
        ModelSpec.from_json(future)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 1}', "not json"])
def test_what_is_no_spec_is_refused_in_one_line(text: str) -> None:
    """Any other text is an error that names the way out."""
    with pytest.raises(MsfnetError, match="export the model again") as caught:
        ModelSpec.from_json(text)
    assert "\n" not in str(caught.value)


def read_schema1(name: str, **notes: str) -> ModelSpec:
    """Read a stored spec of schema 1 with some notes changed."""
    values = json.loads((SCHEMA1 / f"{name}.json").read_text())
    return ModelSpec.from_json(json.dumps({**values, "notes": {**values["notes"], **notes}}))


@pytest.mark.parametrize("name", ["int8", "fp16", "cpu"])
def test_a_spec_of_schema_1_is_upgraded(name: str) -> None:
    """Its notes become fields; what it did not say is unknown."""
    spec = read_schema1(name)

    assert (spec.schema_version, spec.opset, spec.recipe, spec.ablation) == (
        2,
        18,
        "nyu_lite",
        "usf",
    )
    assert (spec.size, spec.inverse_scale, spec.depth_range_m) == ((64, 96), 10.0, (0.1, 10.0))
    assert (spec.checkpoint_sha256, spec.git_revision) == ("ab" * 32, "0123abc")
    assert [output.role for output in spec.outputs] == ["depth"]
    assert (spec.resize, spec.camera, spec.scale) == (Resize(), None, Scale())
    blocks = {block.name: block for block in spec.blocks}
    assert blocks["usf.stage3"].inputs == ("eda",)
    assert blocks["decoder.bottom"].macs == 442368
    assert blocks["decoder.bottom"].operators["Conv"] == 1
    assert ModelSpec.from_json(spec.to_json()) == spec


def test_what_was_measured_under_schema_1_is_kept_as_figures() -> None:
    """The sentences of calibration, FP16, CPU exports and the search; other notes are left out."""
    int8, fp16, cpu = (read_schema1(name) for name in ("int8", "fp16", "cpu"))

    assert int8.calibration is not None
    assert int8.calibration.text() == (
        "percentile, 4 frames, 46 convolutions, for tensorrt, int8 activations"
    )
    assert int8.calibration.summary is not None
    assert int8.calibration.summary.count == 4
    assert int8.calibration.summary.hashes[0] == "052dfd4377bf04f7"
    assert int8.calibration.summary.percentiles["log_aspect"][1] == pytest.approx(np.log(131 / 97))
    assert int8.change == DepthChange(2.8e-4, 2.1e-3, 4)
    assert fp16.change == DepthChange(2.0e-4, 4.4e-4, 2, random=True)
    assert fp16.islands == (Fp32Island("InstanceNormalization", ("usf.rdr",)),)
    assert (cpu.layout, cpu.weights_file) == ("cpu", "cpu.283bb75aec8c.data")
    assert (int8.layout, int8.weights_file) == ("any", "")
    searched = read_schema1(
        "int8",
        remark="written by hand",
        precision_measured="budget rel +1%: rel -0.25% under nyu_hu on 12 frames held out, 1.23 "
        "times as fast as FP32 on ONNX Runtime 1.2, cpu",
    )
    assert searched.search == SearchRecord(
        "rel +1%", -0.0025, "nyu_hu", 12, 1.23, "ONNX Runtime 1.2, cpu"
    )
    assert searched.search.text().startswith("budget rel +1%: rel -0.25% under nyu_hu on 12 frames")
    assert searched.change is None


@pytest.mark.parametrize("notes", [{"blocks": "[{}]"}, {"blocks": "3"}, {"opset": "x"}])
def test_a_damaged_spec_of_schema_1_is_refused_in_one_line(notes: dict[str, str]) -> None:
    """The error is that of any other text that is not a spec."""
    with pytest.raises(MsfnetError, match=r"schema 1 .*export the model again") as caught:
        read_schema1("fp16", **notes)
    assert "\n" not in str(caught.value)
