from __future__ import annotations

import copy
import json
import zipfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder

from msfnet_benchmarks.report.report import BenchmarkReport
from msfnet_runtime.typed import to_json
from tests.benchmarks.report.full_report import full_report

jsonschema = pytest.importorskip("jsonschema", reason="validates what programs read")

SCHEMA = json.loads(
    resources.files("msfnet_benchmarks.report").joinpath("bench_schema.json").read_text("utf-8")
)


@pytest.fixture
def stored() -> dict[str, Any]:
    """Return a report in which everything is measured, as other programs read it."""
    return dict(json.loads(to_json(full_report())))


def problems(content: object) -> list[str]:
    """Return what a validator finds."""
    return [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(content)]


def test_the_schema_is_one() -> None:
    """The schema is valid by draft 2020-12."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_reports_keep_to_the_schema(stored: dict[str, Any]) -> None:
    """Everything measured; and next to nothing."""
    bare = BenchmarkReport("t", (), None, None, None, 1, (2, 3), {}, "2026-11-24T02:00:00+00:00")

    assert problems(stored) == []
    assert problems(json.loads(to_json(bare))) == []


def spoil_schema(report: dict[str, Any]) -> None:
    """Make it another program's."""
    report["schema"] = "msfnet-bench/1"


def spoil_time(report: dict[str, Any]) -> None:
    """Store a time as text."""
    report["rows"][0]["latency"]["p50_ms"] = "90 ms"


def spoil_size(report: dict[str, Any]) -> None:
    """Store a size below 0."""
    report["rows"][1]["size_bytes"] = -1


def spoil_frame(report: dict[str, Any]) -> None:
    """Store a size of three sides."""
    report["frame_size"] = [1, 2, 3]


def lose_macs(report: dict[str, Any]) -> None:
    """Leave a field out."""
    del report["rows"][1]["macs"]


def add_field(report: dict[str, Any]) -> None:
    """Store a field that nobody described."""
    report["rows"][1]["layers"][0]["colour"] = "blue"


@pytest.mark.parametrize(
    "spoil", [spoil_schema, spoil_time, spoil_size, spoil_frame, lose_macs, add_field]
)
def test_a_broken_report_is_found_out(
    stored: dict[str, Any], spoil: Callable[[dict[str, Any]], None]
) -> None:
    """Whatever is broken."""
    broken = copy.deepcopy(stored)
    spoil(broken)

    assert len(problems(broken)) == 1


def test_the_wheel_carries_the_schema(tmp_path: Path) -> None:
    """Who installs the package can read it beside the module."""
    root = Path(__file__).parents[3]
    (wheel,) = WheelBuilder(str(root)).build(directory=str(tmp_path), versions=["standard"])

    with zipfile.ZipFile(wheel) as archive:
        content = json.loads(archive.read("msfnet_benchmarks/report/bench_schema.json"))
    assert content == SCHEMA
