"""Turns JSON and TOML into frozen dataclasses and back, refusing what does not fit.

Every file that msfnet reads goes through :func:`read_json` or :func:`read_toml`, so that an error
always names the file, the key and the type that was expected.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import sys
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.files import atomic_path, regular_size
from msfnet_runtime.libraries import require

T = TypeVar("T")

_LONGEST_VALUE = 80
"""Characters of a wrong value that an error message shows."""

_LARGEST_FILE = 64 << 20
"""Bytes of a file that is read as a whole; the largest that msfnet writes has a tenth."""

_DEEPEST = 64
"""Tables and lists within each other; msfnet's files have ten."""

_LONGEST_TEXT = 10_000
"""Characters of a text of :func:`check_values`."""

_LARGEST_INT = 2**63 - 1

_LONGEST_NAME = 255
"""Bytes of a file's name that systems accept."""


def build(kind: type[T], values: Any, source: str, key: str = "") -> T:
    """Return plain values as the annotated type.

    Args:
        kind: a dataclass whose fields are bool, int, float, str, Path, Any, Literal, tuples,
            mappings with strings as keys, dataclasses, or unions of these and None. Such an
            annotation itself is also accepted.
        values: what :mod:`json` or :mod:`tomllib` return. Whole numbers are accepted as floats.
            None is NaN for a float, and counts as left out where a field does not allow it.
        source: where the values come from, for messages.
        key: the key of the values within the source, for messages.

    Raises:
        MsfnetError: unknown or missing key, or a value of another type, named with ``source``.
    """
    return cast(T, _convert(kind, values, _Place(source, key)))


def parse_json(text: str | bytes, kind: type[T], source: str) -> T:
    """Build ``kind`` from JSON; arguments and errors as :func:`build`."""
    try:
        values = json.loads(text)
        _check_depth(values)
    except (ValueError, RecursionError) as error:
        raise MsfnetError(f"{source} is not JSON: {_short(str(error))}") from None
    return build(kind, values, source)


def read_json(path: str | os.PathLike[str], kind: type[T]) -> T:
    """Build ``kind`` from a JSON file.

    Raises:
        MsfnetError: the file cannot be read, or as :func:`build`.
    """
    return parse_json(read_text(path), kind, os.fspath(path))


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """Return the plain values of a TOML document.

    Raises:
        MsfnetError: not TOML, or no TOML library is installed (Python 3.10 has none of its own).
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        require("tomli")
        import tomli as tomllib
    try:
        values = tomllib.loads(text)
        _check_depth(values)
    except (ValueError, RecursionError) as error:
        raise MsfnetError(f"{source} is not TOML: {_short(str(error))}") from None
    return values


def read_toml(path: str | os.PathLike[str], kind: type[T]) -> T:
    """Build ``kind`` from a TOML file.

    Raises:
        MsfnetError: the file cannot be read, or as :func:`build`.
    """
    source = os.fspath(path)
    return build(kind, parse_toml(read_text(path), source), source)


def read_text(path: str | os.PathLike[str], source: str | None = None) -> str:
    """Return a UTF-8 file's text, without the byte order mark that Windows programs write.

    Args:
        path: the file.
        source: its name in messages; the path if None.

    Raises:
        MsfnetError: the file cannot be read, is not a file, has more than 64 MiB or is not text.
    """
    name = source or os.fspath(path)
    try:
        if regular_size(Path(path)) > _LARGEST_FILE:
            raise MsfnetError(f"{name} has more than {_LARGEST_FILE >> 20} MiB; check the path")
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise MsfnetError(f"cannot read {name}: {reason}; check the path") from None


def check_values(value: Any, key: str = "") -> None:
    """Refuse what no dataclass of a model holds: texts of several lines, numbers without an end.

    Texts have one line of printable characters, numbers are finite, whole ones have 64 bits.
    Paths, which are the user's, are not looked at.

    Args:
        value: a dataclass, and within it what :func:`build` accepts.
        key: the key of the value, for messages.

    Raises:
        MsfnetError: a value differs; named by its key.
    """
    if is_dataclass(value) and not isinstance(value, type):
        for f in fields(value):
            check_values(getattr(value, f.name), f"{key}.{f.name}" if key else f.name)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            check_values(name, f"a name in {key}")
            check_values(item, f"{key}.{name}")
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            check_values(item, f"{key}[{number}]")
    elif isinstance(value, str) and not (len(value) <= _LONGEST_TEXT and value.isprintable()):
        raise MsfnetError(f"{key} must be one line of printable characters, not {_quoted(value)}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise MsfnetError(f"{key} must be a finite number, not {value}")


def check_range(key: str, value: float, low: float, high: float = math.inf) -> None:
    """Refuse a number outside a range, or NaN.

    Raises:
        MsfnetError: the value is not within low and high, which belong to the range.
    """
    if not low <= value <= high:
        limits = f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
        raise MsfnetError(f"{key} must be {limits}, not {value:g}")


def check_name(key: str, name: str) -> None:
    """Refuse a file name with a folder, or none.

    Raises:
        MsfnetError: it would name another folder's file on some system.
    """
    plain = name not in ("", ".", "..") and not re.search(r"[/\\\0]|^[A-Za-z]:", name)
    if not (plain and name.isprintable() and len(os.fsencode(name)) <= _LONGEST_NAME):
        raise MsfnetError(f"{key} must be the name of a file without a folder, not {_quoted(name)}")


def check_sha256(key: str, text: str) -> None:
    """Refuse what is not a SHA-256 in hexadecimal.

    Raises:
        MsfnetError: it is not.
    """
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise MsfnetError(f"{key} must be a SHA-256 of 64 hexadecimal digits, not {_quoted(text)}")


def to_plain(value: Any, digits: int | None = None) -> Any:
    """Return dicts, lists and numbers that :func:`build` turns into ``value`` again.

    Numbers that are not finite become None, since JSON has no notation for them; others are
    rounded to ``digits`` decimals, if not None.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name), digits) for f in fields(value) if f.init}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item, digits) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item, digits) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if not isinstance(value, float):
        return value
    rounded = value if digits is None else round(float(value), digits)
    return rounded if math.isfinite(rounded) else None


def to_json(value: Any, indent: int | None = 2) -> str:
    """Return a value of :func:`to_plain` as strict JSON."""
    return json.dumps(to_plain(value), indent=indent, allow_nan=False)


def write_json(path: str | os.PathLike[str], value: Any, indent: int | None = 2) -> None:
    """Write :func:`to_json` and a line break to a file, whole or not at all.

    Raises:
        MsfnetError: the file cannot be written.
    """
    with atomic_path(path) as partial:
        partial.write_text(to_json(value, indent) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class _Place:
    """The position of a value in its source, for messages."""

    source: str
    key: str = ""

    def __str__(self) -> str:
        return f"{self.key} in {self.source}" if self.key else self.source

    def at(self, name: str | int) -> _Place:
        """Return the place of a key of this table, or of an item of this list."""
        if isinstance(name, int):
            return _Place(self.source, f"{self.key}[{name}]")
        return _Place(self.source, f"{self.key}.{_short(name)}" if self.key else _short(name))


def _members(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union without None, or a tuple of the annotation."""
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(member for member in get_args(hint) if member is not type(None))
    return (hint,)


def _convert(hint: Any, value: Any, place: _Place) -> Any:
    """Return a value as the annotated type; see :func:`build`."""
    members = _members(hint)
    if value is None and type(None) in get_args(hint):
        return None
    if isinstance(value, Mapping):
        tables = [member for member in members if is_dataclass(member)]
        members = tuple(tables) if len(tables) == 1 else members
    if len(members) == 1:
        return _convert_one(members[0], value, place)
    for member in members:
        try:
            return _convert_one(member, value, place)
        except MsfnetError:
            continue
    raise _mismatch(hint, value, place)


def _convert_one(hint: Any, value: Any, place: _Place) -> Any:
    """Return a value as an annotated type that is not a union."""
    origin, arguments = get_origin(hint), get_args(hint)
    if is_dataclass(hint) and isinstance(value, Mapping):
        return _convert_table(cast(type[Any], hint), value, place)
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {name: _convert(arguments[1], value[name], place.at(name)) for name in value}
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(value):
            pairs = zip(kinds, value, strict=True)
            return tuple(_convert(*pair, place.at(n)) for n, pair in enumerate(pairs))
    if _fits(hint, value):
        return hint(value) if hint in (float, Path) else value
    if hint is float and value is None:
        return math.nan
    raise _mismatch(hint, value, place)


def _fits(hint: Any, value: Any) -> bool:
    """Return whether a value that is neither list nor table has an annotated type."""
    if hint is Any or get_origin(hint) is Literal:
        return hint is Any or (value in get_args(hint) and not isinstance(value, bool))
    if hint is float and isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if hint is int:
        return type(value) is int and abs(value) <= _LARGEST_INT
    return hint in (bool, float, str, Path) and isinstance(value, str if hint is Path else hint)


def _convert_table(kind: type[Any], values: Mapping[str, Any], place: _Place) -> Any:
    """Return a dataclass built from a table."""
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind) if f.init}
    converted = {}
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"known are {', '.join(known)}"
            if near:
                hint = f"did you mean {place.at(near[0]).key}?"
            raise MsfnetError(f"unknown key {place.at(name)}; {hint}")
        kind_of = hints[name]
        if value is not None or kind_of in (float, Any) or type(None) in get_args(kind_of):
            converted[name] = _convert(kind_of, value, place.at(name))
    for name, f in known.items():
        if name not in converted and f.default is MISSING and f.default_factory is MISSING:
            place = place.at(name)
            raise MsfnetError(f"{place.key} is missing in {place.source}; add it")
    try:
        return kind(**converted)
    except MsfnetError as error:
        raise MsfnetError(f"{place.source}: {error}") from None


def _mismatch(hint: Any, value: Any, place: _Place) -> MsfnetError:
    """Return the error of a value of another type."""
    return MsfnetError(f"{place} must be {_words(hint)}, not {_quoted(value)}")


def _quoted(value: Any) -> str:
    """Return the beginning of a value for a message."""
    return _short(repr(value))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def _check_depth(values: Any) -> None:
    """Refuse values nested so deeply that functions which call themselves could fail.

    Raises:
        ValueError: they are.
    """
    layer = [values]
    for _ in range(_DEEPEST):
        tables = [list(each.values()) for each in layer if isinstance(each, dict)]
        lists = [each for each in layer if isinstance(each, list)]
        layer = [item for each in (*tables, *lists) for item in each]
        if not layer:
            return
    raise ValueError(f"more than {_DEEPEST} tables and lists within each other")


def _words(hint: Any) -> str:
    """Return an annotated type as text."""
    members, arguments = _members(hint), get_args(hint)
    if members != (hint,):
        return " or ".join(_words(member) for member in members)
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in arguments)
    if get_origin(hint) is tuple and arguments[-1] is Ellipsis:
        return f"a list of {_words(arguments[0])}"
    if get_origin(hint) is tuple:
        return f"[{', '.join(_words(member) for member in arguments)}]"
    names = {bool: "true or false", int: "a whole number", float: "a number"}
    return names.get(hint, "a string" if hint in (str, Path) else "a table")
