"""Words of the command line that several commands share, and how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ProviderOption = Annotated[
    str,
    typer.Option(
        "--provider",
        help="What runs ONNX files: cpu, cuda or tensorrt (ONNX Runtime's), or openvino; with "
        "options as cuda:device_id=1.",
    ),
]


def refuse_existing(out: Path, force: bool) -> None:
    """Keep a file that is there.

    Raises:
        MsfnetError: it exists, and nothing says to replace it.
    """
    from msfnet_runtime.errors import MsfnetError

    if out.exists() and not out.is_dir() and not force:
        raise MsfnetError(f"{out} exists already; pass --force to replace it")


def parse_size(text: str) -> tuple[int, int]:
    """Read ``HxW`` as (height, width) in pixels.

    Raises:
        MsfnetError: it is not two whole numbers of at least 32.
    """
    from msfnet_runtime.errors import MsfnetError

    height, cross, width = text.lower().partition("x")
    if not (cross and height.isdecimal() and width.isdecimal()):
        raise MsfnetError(f"size {text!r} is not HxW; write for instance 228x304")
    size = int(height), int(width)
    if min(size) < 32 or max(size) > 8192:
        raise MsfnetError(f"size {text} is out of range; both sides go from 32 to 8192 pixels")
    return size


def parse_names(text: str) -> tuple[str, ...]:
    """Read a list separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def parse_numbers(text: str, what: str) -> tuple[int, ...]:
    """Read whole numbers separated by commas.

    Args:
        text: the list; may be empty.
        what: they are, for the error: ``seeds``.

    Raises:
        MsfnetError: something else.
    """
    from msfnet_runtime.errors import MsfnetError

    names = parse_names(text)
    if not all(name.isdecimal() for name in names):
        raise MsfnetError(f"{what} {text!r} are not whole numbers; write for instance 0,1")
    return tuple(int(name) for name in names)


def parse_share(text: str) -> float:
    """Read a share: ``5%`` or ``0.05``.

    Raises:
        MsfnetError: it is none of 0 or more.
    """
    from msfnet_runtime.errors import MsfnetError

    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < float("inf"):
        raise MsfnetError(f"{text!r} is no share; write for instance 5% or 0.05")
    return share
