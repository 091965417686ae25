"""The spec survives its journey inside a file, and refuses what no runtime could act on."""

from __future__ import annotations

import json

import pytest

from msfnet_runtime import ModelSpec, MsfnetError
from tests.specs import deploy_spec, network_spec


def test_a_spec_comes_back_from_json_as_it_went_in() -> None:
    """Every field, notes and symbolic dimensions included, survives JSON."""
    spec = deploy_spec(precision="int8").with_note("calibration", "entropy, 64 frames")

    assert ModelSpec.from_json(spec.to_json()) == spec


def test_the_prediction_range_of_inverse_depth_is_the_reciprocal_of_the_depth_range() -> None:
    """DenseDepth: 0.1 to 10 m is predicted as 100 to 1."""
    spec = network_spec(depth_kind="inverse", depth_range_m=(0.1, 10.0), inverse_scale=10.0)

    assert spec.prediction_range == pytest.approx((1.0, 100.0))


@pytest.mark.parametrize("depth_range", [(0.0, 10.0), (5.0, 5.0), (1.0, float("inf"))])
def test_a_depth_range_that_is_none_is_refused(depth_range: tuple[float, float]) -> None:
    """Zero, empty and infinite ranges would divide by zero or clamp nothing."""
    with pytest.raises(MsfnetError, match="range"):
        network_spec(depth_range_m=depth_range)


def test_a_newer_schema_is_refused_by_its_number() -> None:
    """A file from the future says so instead of being half understood."""
    future = json.dumps({**json.loads(network_spec().to_json()), "schema_version": 2})

    with pytest.raises(MsfnetError, match="schema version 2"):
        ModelSpec.from_json(future)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 1}', "not json"])
def test_what_is_no_spec_is_refused_in_one_line(text: str) -> None:
    """Any other text is an error that names the way out."""
    with pytest.raises(MsfnetError, match="export the model again") as caught:
        ModelSpec.from_json(text)
    assert "\n" not in str(caught.value)
