"""Values that nobody would write into specs, manifests and metadata are refused in one line."""

from __future__ import annotations

import copy
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from msfnet_runtime import EngineArtifact, Frame, ModelSpec, MsfnetError
from msfnet_runtime.engine import check_batch
from msfnet_runtime.onnx_metadata import read_onnx_spec
from msfnet_runtime.preflight import preflight, rebuild_command
from msfnet_runtime.preprocess import finish, prepare
from tests.manifests import write_engine
from tests.onnx_models import conv_model
from tests.runtime.test_spec import FULL, SCHEMA1
from tests.specs import network_spec

ODD: list[Any] = [
    *(None, True, -1, 0, 3, 20_000, 10**9, 2**70, 10**400, 1e308, -1e-320, 0.5),
    *(float("nan"), float("inf"), [], {}, [[]], [1, 2, 3], [[1], [2], [3]], {"a": 1}, {"": None}),
    *("", ".", "..", "/etc/passwd", "../../x", "C:x", "a\\b", "a\0b", "x" * 5000, "1", "nan"),
    *("\x1b[2J\x1b]0;x\x07", "one\ntwo\r", "\u202egpj.exe", "\ud800", "$(touch x);`id`", "object"),
    *("float64,float64", "(2,3)f4", "sm86\n", "2026-13-45", "0" * 64, "-rf", "深度 Größe"),
]

MOST_BYTES = 1 << 20
"""Memory that reading a small hostile file may take."""


def places(values: Any) -> list[tuple[Any, Any]]:
    """Return (container, key) of all values within others."""
    keys = range(len(values)) if isinstance(values, list) else list(values)
    found = [(values, key) for key in keys]
    for key in keys:
        if isinstance(values[key], (list, dict)):
            found += places(values[key])
    return found


def wounded(values: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Return a copy with one to three values replaced, removed, doubled or renamed."""
    changed = copy.deepcopy(values)
    for _ in range(rng.integers(1, 4)):
        within = places(changed)
        container, key = within[rng.integers(len(within))]
        odd = copy.deepcopy(ODD[rng.integers(len(ODD))])
        kind = rng.integers(0, 8)
        if kind == 0:
            del container[key]
        elif kind == 1 and isinstance(container, list):
            container += copy.deepcopy(container)
        elif kind == 1:
            container[odd if isinstance(odd, str) else "evil"] = container.pop(key)
        elif kind == 2:
            container[key] = [odd] * int(rng.integers(0, 5))
        else:
            container[key] = odd
    return changed


def use(spec: ModelSpec) -> None:
    """Do with a spec what commands do before they run a model."""
    text = spec.to_json()
    assert ModelSpec.from_json(text) == spec
    assert all(line.isprintable() for line in (text, *spec.precision_facts().values()))
    low, high = spec.prediction_range
    assert 0 < low < high < np.inf
    spec.check_runnable()
    if max(spec.size) > 2000 or max([s for s in spec.inputs[0].shape if isinstance(s, int)]) > 2000:
        return
    frame = Frame(np.full((4, 5, 3), 128, np.uint8), 0, 0.0)
    check_batch(prepare(frame.image, spec), spec)
    values, _ = finish(np.ones((1, 1, 2, 2), np.float32), (4, 5), spec)
    assert values.shape == (4, 5)


def originals() -> list[dict[str, Any]]:
    """Return specs of both schemas as plain values, with every field used."""
    schema1 = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(SCHEMA1.iterdir())]
    return [json.loads(FULL.to_json()), json.loads(network_spec().to_json()), *schema1]


def expect_no_fault(content: str | bytes, work: Any) -> bool:
    """Return whether a piece of work refuses its input; fail for anything but one plain line."""
    try:
        work()
    except MsfnetError as error:
        line = str(error)
    except Exception as error:
        raise AssertionError(f"{error!r} at {content!r:.3000}") from error
    else:
        return False
    assert line.isprintable(), line
    assert len(line) < 1500, line[:3000]
    return True


def test_hundreds_of_hostile_specs_are_refused_or_used() -> None:
    """Most are refused; those that are not can be used, printed and written again."""
    rng, sources = np.random.default_rng(5), originals()
    refused = 0
    for number in range(500):
        text = json.dumps(wounded(sources[number % len(sources)], rng))
        refused += expect_no_fault(text, lambda text=text: use(ModelSpec.from_json(text)))
    assert 300 < refused < 500


def test_hundreds_of_hostile_manifests_are_refused_or_used(tmp_path: Path) -> None:
    """What a rebuild command names are plain names and sizes, whatever the manifest says."""
    rng = np.random.default_rng(6)
    artifact = write_engine(tmp_path)
    manifest = artifact.sidecar(artifact.path)
    options = {
        "profiles": [[[1, 2, 2], [2, 3, 3], [4, 8, 8]]],
        "workspace_mib": 256,
        "timing_cache": "cache.bin",
        "version_compatible": True,
    }
    whole = json.loads(manifest.read_text(encoding="utf-8")) | {"options": options}

    def read() -> None:
        found = EngineArtifact.read(artifact.path)
        assert rebuild_command(found).isprintable()
        preflight(found, "1.0", "sm86")

    refused = 0
    for _ in range(500):
        text = json.dumps(wounded(whole, rng))
        manifest.write_text(text, encoding="utf-8")
        refused += expect_no_fault(text, read)
    assert 300 < refused <= 500


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        "[" * 900 + "]" * 900,
        '{"graph": ' + "[" * 400 + "]" * 400 + "}",
        '{"schema_version": 1, "notes": {"blocks": "' + "[" * 900 + "]" * 900 + '"}}',
        '{"schema_version": ' + "9" * 5000 + "}",
        '{"schema_version": NaN}',
        "\x00",
    ],
)
def test_texts_that_break_parsers_are_refused(text: str, tmp_path: Path) -> None:
    """Deep nesting, and numbers of thousands of digits, in specs and in manifests."""
    assert expect_no_fault(text, lambda: ModelSpec.from_json(text))
    artifact = write_engine(tmp_path)
    artifact.sidecar(artifact.path).write_text(text, encoding="utf-8")
    assert expect_no_fault(text, lambda: EngineArtifact.read(artifact.path))


def field(number: int, content: bytes) -> bytes:
    """Return one field of a protobuf message, of bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    """Return a whole number in seven bits a byte."""
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


MODEL = bytes(conv_model(network_spec()).SerializeToString())

ENTRY = field(14, field(1, b"msfnet_spec") + field(2, b"{}"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 1000,
        b"hello",
        MODEL[:-10],
        MODEL + varint(14 << 3 | 2) + b"\xff\xff\xff\xff\x7f",
        MODEL + b"\x72" + b"\xff" * 9 + b"\x7f",
        MODEL + b"\x08\x01" * 300_000,
        MODEL + field(14, b"\xff\xfe"),
        MODEL + field(14, field(1, b"\xff") + field(2, b"")),
        MODEL + ENTRY,
        MODEL + field(14, field(1, b"msfnet_spec") + field(2, b"\xff")),
    ],
)
def test_metadata_of_odd_onnx_files_is_refused(content: bytes, tmp_path: Path) -> None:
    """Cut, overlong, endless and undecodable fields."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert expect_no_fault(content[-100:], lambda: read_onnx_spec(path))


def test_metadata_that_declares_gigabytes_is_not_reserved(tmp_path: Path) -> None:
    """The file has holes: 8 GB on paper, nothing on disk."""
    path = tmp_path / "model.onnx"
    size = 8 << 30
    start = MODEL + varint(14 << 3 | 2) + varint(size)
    path.write_bytes(start)
    with path.open("r+b") as file:
        file.truncate(len(start) + size)
    tracemalloc.start()
    try:
        assert expect_no_fault(start[-20:], lambda: read_onnx_spec(path))
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


def test_a_sound_file_passes(tmp_path: Path) -> None:
    """The files that are damaged above can be read before."""
    onnx.save(onnx.load_from_string(MODEL), tmp_path / "model.onnx")
    use(read_onnx_spec(tmp_path / "model.onnx"))
    for values in originals():
        assert ModelSpec.from_json(json.dumps(values)).encoder
