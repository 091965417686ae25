"""Builds frozen dataclasses from the plain values of a TOML file, refusing what does not fit."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from msfnet_runtime import MsfnetError


def build(kind: type[Any], values: Mapping[str, Any], source: str, prefix: str = "") -> Any:
    """Build the dataclass ``kind`` from a table, and its tables with it.

    Args:
        kind: a dataclass whose fields are bool, int, float, str, Literal, tuples of these,
            unions of these with None, or dataclasses.
        values: the table; None counts as left out.
        source: where the table comes from, for messages.
        prefix: the table's own name, for messages.

    Raises:
        MsfnetError: unknown or missing key, or a value of another type, named with ``source``.
    """
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    given = {key: value for key, value in values.items() if value is not None}
    for key in given:
        if key not in known:
            raise MsfnetError(_unknown(prefix + key, list(known), prefix, source))
    for name, f in known.items():
        if name not in given and f.default is MISSING and f.default_factory is MISSING:
            raise MsfnetError(f"{prefix}{name} is missing in recipe {source}; add it")
    converted = {
        key: convert(hints[key], value, source, prefix + key) for key, value in given.items()
    }
    try:
        return kind(**converted)
    except MsfnetError as error:
        raise MsfnetError(f"recipe {source}: {error}") from None


def _unknown(key: str, known: list[str], prefix: str, source: str) -> str:
    near = difflib.get_close_matches(key.removeprefix(prefix), known, n=1)
    hint = f"did you mean {prefix}{near[0]}?" if near else f"known are {', '.join(known)}"
    return f"unknown key {key} in recipe {source}; {hint}"


def convert(hint: Any, value: Any, source: str, key: str) -> Any:
    """Return ``value`` as the annotated type; whole numbers are taken as floats where asked.

    Raises:
        MsfnetError: it is of another type.
    """
    if is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise MsfnetError(f"{key} in recipe {source} must be a table, not {value!r}")
        return build(hint, value, source, f"{key}.")
    if not _fits(hint, value):
        raise MsfnetError(f"{key} in recipe {source} must be {_words(hint)}, not {value!r}")
    return _cast(hint, value)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union without None, or the hint alone."""
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(member for member in get_args(hint) if member is not type(None))
    return (hint,)


def _fits(hint: Any, value: Any) -> bool:
    alternatives = _alternatives(hint)
    if len(alternatives) > 1:
        return any(_fits(member, value) for member in alternatives)
    (hint,) = alternatives
    if get_origin(hint) is Literal:
        return value in get_args(hint) and not isinstance(value, bool)
    if get_origin(hint) is tuple:
        members = get_args(hint)
        return (
            isinstance(value, (list, tuple))
            and len(value) == len(members)
            and all(_fits(member, item) for member, item in zip(members, value, strict=True))
        )
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _cast(hint: Any, value: Any) -> Any:
    for member in _alternatives(hint):
        if get_origin(member) is tuple and isinstance(value, (list, tuple)):
            return tuple(
                _cast(item_hint, item)
                for item_hint, item in zip(get_args(member), value, strict=True)
            )
        if member is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
    return value


def _words(hint: Any) -> str:
    """Return a type in the words of TOML."""
    alternatives = _alternatives(hint)
    if len(alternatives) > 1:
        return " or ".join(_words(member) for member in alternatives)
    (hint,) = alternatives
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in get_args(hint))
    if get_origin(hint) is tuple:
        return f"[{', '.join(_words(member) for member in get_args(hint))}]"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
    return names[hint]
