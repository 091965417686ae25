"""JSON and TOML become frozen dataclasses and come back; what does not fit is named."""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from msfnet_runtime import MsfnetError
from msfnet_runtime.typed import (
    build,
    check_name,
    parse_json,
    read_json,
    read_toml,
    to_plain,
    write_json,
)


@dataclass(frozen=True)
class Circle:
    radius: float

    def __post_init__(self) -> None:
        if self.radius < 0:
            raise MsfnetError("the radius must not be negative")


@dataclass(frozen=True)
class Box:
    sides: tuple[float, float]
    unit: Literal["m", "mm"] = "m"


@dataclass(frozen=True)
class Drawing:
    name: str
    shape: Circle | Box
    count: int = 1
    visible: bool = True
    path: Path | None = None
    labels: tuple[int | str, ...] = ()
    others: tuple[Circle, ...] = ()
    weights: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    error: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)


DRAWING = Drawing(
    "all",
    Box((1.0, 2.5), "mm"),
    3,
    False,
    Path("a/b.png"),
    (1, "batch"),
    (Circle(1.0), Circle(2.0)),
    {"x": (0.5, 1.5), "y": ()},
    0.25,
    {"any": [1, None, {"deep": True}]},
)


def test_a_dataclass_comes_back_from_a_json_file(tmp_path: Path) -> None:
    """Every supported type at once, and defaults where a key is left out."""
    write_json(tmp_path / "new/drawing.json", DRAWING)

    assert read_json(tmp_path / "new/drawing.json", Drawing) == DRAWING
    assert parse_json('[{"radius": 1}]', tuple[Circle, ...], "list") == (Circle(1.0),)
    assert build(Drawing, {"name": "a", "shape": {"radius": 2}}, "x") == Drawing("a", Circle(2.0))


def test_a_toml_file_is_read_alike(tmp_path: Path) -> None:
    """Whole numbers serve where a number is asked for."""
    (tmp_path / "a.toml").write_text('name = "a"\n[shape]\nsides = [1, 2]')

    drawing = read_toml(tmp_path / "a.toml", Drawing)

    assert drawing == Drawing("a", Box((1.0, 2.0)))
    assert isinstance(drawing.shape, Box)
    assert isinstance(drawing.shape.sides[0], float)


def test_null_is_none_or_nan_or_left_out() -> None:
    """Numbers that are not finite are written as null, since JSON has none of them."""
    for value in (math.nan, math.inf, -math.inf):
        plain = to_plain(replace(DRAWING, path=None, error=value))
        assert plain["error"] is None
        again = build(Drawing, {**plain, "count": None}, "x")
        assert math.isnan(again.error)
        assert (again.path, again.count) == (None, 1)


GOOD = {"name": "a", "shape": {"radius": 1}}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"nam": "a", "shape": {"radius": 1}}, "unknown key nam in f; did you mean name?"),
        ({**GOOD, "zzz": 1}, "unknown key zzz in f; known are name, shape"),
        ({"shape": {"radius": 1}}, "name is missing in f"),
        ({**GOOD, "name": None}, "name is missing in f"),
        ({**GOOD, "count": 1.0}, "count in f must be a whole number, not 1.0"),
        ({**GOOD, "count": True}, "count in f must be a whole number, not True"),
        ({**GOOD, "visible": 1}, "visible in f must be true or false, not 1"),
        ({**GOOD, "error": "1"}, "error in f must be a number, not '1'"),
        ({**GOOD, "error": 10**400}, "error in f must be a number"),
        ({**GOOD, "path": 3}, "path in f must be a string, not 3"),
        ({**GOOD, "labels": [1, 2.5]}, "labels[1] in f must be a whole number or a string"),
        ({**GOOD, "labels": "ab"}, "labels in f must be a list of"),
        ({**GOOD, "others": [{"radius": 1}, {}]}, "others[1].radius is missing in f"),
        ({**GOOD, "others": [{"radius": -1}]}, "f: the radius must not be negative"),
        ({**GOOD, "weights": {"x": [1, "y"]}}, "weights.x[1] in f must be a number, not 'y'"),
        ({**GOOD, "weights": [1]}, "weights in f must be a table, not [1]"),
        ({**GOOD, "shape": {"sides": [1]}}, "shape in f must be a table"),
        ({**GOOD, "bad\nkey": 1}, "unknown key bad\\nkey in f"),
        ({**GOOD, "name": ["x" * 5000]}, "name in f must be a string, not ['xxx"),
        ([], "f must be a table, not []"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(values: Any, words: str) -> None:
    """The file, the key, the type that was expected and what is there instead."""
    with pytest.raises(MsfnetError) as caught:
        build(Drawing, values, "f")

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_a_wrong_choice_lists_the_known_ones() -> None:
    """A value of a Literal, and a fixed number of items."""
    with pytest.raises(MsfnetError, match='unit in f must be one of "m", "mm", not \'cm\''):
        build(Box, {"sides": [1, 2], "unit": "cm"}, "f")
    with pytest.raises(MsfnetError, match=r"sides in f must be \[a number, a number\], not \[1\]"):
        build(Box, {"sides": [1]}, "f")


def test_files_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    """Absent, a folder, not text, neither JSON nor TOML, nested without end, endless, a pipe."""
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "bad.toml").write_text("[a\nb = ")
    (tmp_path / "deep.toml").write_text("a = " + "[" * 100_000)
    (tmp_path / "digits.toml").write_text("a = " + "9" * 5000)
    (tmp_path / "nested.json").write_text("[" * 70 + "]" * 70)
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(10 << 30)
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    for name, words in {
        "absent.json": "cannot read .*absent.json: No such file",
        "": "cannot read .*directory",
        "bytes.json": "cannot read .*not text",
        "bad.json": r"bad\.json is not JSON",
        "deep.json": r"deep\.json is not JSON",
        "bad.toml": r"bad\.toml is not TOML",
        "deep.toml": r"deep\.toml is not TOML",
        "digits.toml": r"digits\.toml is not TOML",
        "nested.json": r"nested\.json is not JSON: more than 64",
        "huge.json": r"huge\.json has more than 64 MiB",
        "pipe.json": r"cannot read .*pipe\.json: a pipe or a device",
        "zero.json": r"cannot read .*zero\.json: a pipe or a device",
        "a\0b.json": r"cannot read .*a\\x00b\.json",
    }.items():
        read = read_toml if name.endswith("toml") else read_json
        with pytest.raises(MsfnetError, match=words) as caught:
            read(tmp_path / name, Drawing)
        assert "\n" not in str(caught.value)


def test_an_error_shows_what_would_command_a_terminal() -> None:
    """Escapes, line breaks, bidirectional marks and bytes that are no text; other text stays."""
    plain = "größe 深度\u00a0\u3000 \\ 'x'"
    assert str(MsfnetError(plain)) == plain
    odd = MsfnetError("\x1b[2J\r\n\t\0\x9b\u202e\u2066\u200b\ue000\udcff", parameter="name")
    shown = r"\x1b[2J\r\n\t\x00\x9b\u202e\u2066\u200b\ue000\udcff"
    assert str(odd) == shown
    copied = pickle.loads(pickle.dumps(MsfnetError(str(odd))))
    assert str(copied) == shown


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/a", "a\\b", "C:a", "a\0", "a\n", "a" * 256]
)
def test_a_file_name_names_no_other_folder(name: str) -> None:
    """On no system; names that systems or terminals do not take are refused as well."""
    check_name("weights_file", "Größe 12:30 model.onnx-1.data")
    with pytest.raises(MsfnetError, match="weights_file must be the name of a file"):
        check_name("weights_file", name)
