"""Reads specs of schema 1, whose free-text notes held sentences and JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.typed import parse_json

_CALIBRATION = re.compile(
    r"(?P<method>\w+), (?P<frames>\d+) frames, (?P<convolutions>\d+) convolutions, "
    r"for (?P<target>\w+)"
)

_CHANGE = re.compile(
    r"depth changes by (?P<median>\S+) at the median and (?P<p99>\S+) at the 99th percentile of "
    r"the worst of (?P<images>\d+) (random )?images?(?:; in fp32: (.*))?"
)

_SEARCH = re.compile(
    r"budget (?P<budget>\S+ \S+): \S+ (?P<change>[+-][\d.]+)(%?) under (?P<protocol>\S+) on "
    r"(?P<frames>\d+) frames held out, (?P<speedup>[\d.]+) times as fast as FP32 on (?P<engine>.+)"
)


def upgrade(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spec's plain values in schema 2.

    A note that no msfnet wrote is left out, since no field has its meaning.

    Raises:
        MsfnetError: the values cannot be read.
    """
    try:
        return _upgrade(dict(values))
    except (MsfnetError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise MsfnetError(f"the model's spec of schema 1 cannot be read ({error})") from None


def _upgrade(values: dict[str, Any]) -> dict[str, Any]:
    notes: dict[str, str] = values.pop("notes", {})
    if len(values["outputs"]) == 1:
        values["outputs"] = [{**values["outputs"][0], "role": "depth"}]
    values["resize"] = {"policy": values.pop("resize", "stretch")}
    values["weights_file"] = notes.get("external_data", "")
    values["layout"] = "cpu" if "for CPUs" in notes else "any"
    values["opset"] = int(notes["opset"]) if "opset" in notes else None
    values |= {name: notes.get(name, "") for name in ("recipe", "ablation")}
    blocks = parse_json(notes.get("blocks", "[]"), tuple[dict[str, Any], ...], "blocks")
    values["blocks"] = [{"inputs": block.pop("takes"), **block} for block in blocks]
    values["schema_version"] = 2
    return values | _measured(notes)


def _measured(notes: Mapping[str, str]) -> dict[str, Any]:
    """Return the figures in the sentences that calibration, FP16 and the search wrote."""
    measured: dict[str, Any] = {}
    if found := _CALIBRATION.fullmatch(notes.get("calibration", "")):
        summary = parse_json(notes.get("calibration_frames", "{}"), dict[str, Any], "frames")
        summary.pop("count", None)
        measured["calibration"] = _values(found) | {"summary": summary or None}
    sentence = notes.get("precision_measured", notes.get("fp16", ""))
    if found := _CHANGE.fullmatch(sentence):
        measured["change"] = _values(found) | {"random": bool(found[4])}
        parts = [part.rpartition(" in ") for part in (found[5] or "").split("; ")]
        measured["islands"] = [
            {"reason": reason, "blocks": blocks.split(", ")}
            for reason, _, blocks in parts
            if reason
        ]
    if found := _SEARCH.fullmatch(sentence):
        measured["search"] = values = _values(found)
        values["change"] /= 100 if found[3] else 1
    return measured


def _values(found: re.Match[str]) -> dict[str, Any]:
    """Return the named groups of a sentence, converted to numbers where their field is one."""
    kinds: dict[str, Callable[[str], Any]] = {
        **dict.fromkeys(("frames", "convolutions", "images"), int),
        **dict.fromkeys(("median", "p99", "change", "speedup"), float),
    }
    return {name: kinds.get(name, str)(text) for name, text in found.groupdict().items()}
