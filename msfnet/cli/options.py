"""Options that several commands share, each declared once, and how their values are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from msfnet_benchmarks.scoring.protocols import PROTOCOLS, find_protocol
from msfnet_runtime.engines.providers import PROVIDERS, Provider
from msfnet_runtime.errors import MsfnetError


class Size(NamedTuple):
    """Height and width, pixels."""

    height: int
    width: int


class Numbers(tuple[int, ...]):
    """Whole numbers."""


class Names(tuple[str, ...]):
    """Names."""


PROVIDER_HELP = (
    f"What runs ONNX files: {', '.join(PROVIDERS)}; with options such as cuda:device_id=1. All but "
    "openvino are ONNX Runtime's."
)

ThreadsOption = Annotated[
    int, typer.Option("--threads", min=0, help="CPU threads; 0: the library's choice.")
]

ListOption = Annotated[
    str | None,
    typer.Option(
        "--list",
        help="List of the data set to read, by its name or its file; the data set's own choice "
        "if left out.",
    ),
]

FRAMES_HELP = "Number of frames to use, spread over the data; 0: all."

DATA_HELP = "Data set with ground truth: KITTI, NYU, or a folder of your own."
"""The help of ``--data`` for commands that score or train."""

SOURCE_HELP = "Frames: a data set, a folder of images, a video, or a generated source."
"""The help of ``--data`` for commands that need no ground truth."""

JsonOption = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        help="Write the results to this file as JSON; - prints them instead of the text.",
    ),
]

ForceOption = Annotated[bool, typer.Option("--force", help="Replace existing files.")]

SeedOption = Annotated[
    int, typer.Option("--seed", help="Seed of all random choices; the same seed, the same result.")
]


def help_alone(context: typer.Context) -> None:
    """Show the help where no command is named: who types the name alone asks what there is."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def size_option(flag: str, help_text: str) -> Any:
    """Declare an option of two sides in pixels, whose type is :class:`Size`."""
    return parsed_option(flag, "HxW", parse_size, help_text)


def numbers_option(flag: str, help_text: str) -> Any:
    """Declare an option of whole numbers separated by commas, whose type is :class:`Numbers`."""
    return parsed_option(flag, "N,N", parse_numbers, help_text)


def share_option(flag: str, help_text: str) -> Any:
    """Declare an option of a share, ``5%`` or ``0.05``, whose type is ``float``."""
    return parsed_option(flag, "SHARE", parse_share, help_text)


def names_option(
    flag: str,
    help_text: str,
    *,
    choices: Sequence[str] = (),
    kind: Callable[[Sequence[Any]], Sequence[str]] = Names,
) -> Any:
    """Declare an option of names separated by commas.

    Args:
        flag: its name.
        help_text: what it is for; the choices are added.
        choices: the names there are; any name if empty.
        kind: the option's type, a subclass of ``tuple``.
    """

    def read(text: str) -> Sequence[str]:
        names = parse_names(text)
        for name in names:
            if choices and name not in choices:
                raise MsfnetError(f"unknown name {name!r}; choose from {', '.join(choices)}")
        return kind(names)

    words = f"{help_text} Any of {','.join(choices)}." if choices else help_text
    return parsed_option(flag, "NAME,NAME", read, words)


def parsed_option(flag: str, metavar: str, read: Callable[[str], object], help_text: str) -> Any:
    """Declare an option whose text a function reads; its ``MsfnetError`` is bad usage."""

    def parse(value: Any) -> Any:
        if not isinstance(value, str):  # the default
            return value
        try:
            return read(value)
        except MsfnetError as error:
            raise typer.BadParameter(str(error)) from None

    return typer.Option(flag, metavar=metavar, parser=parse, help=help_text)


def checked_option(flag: str, metavar: str, check: Callable[[str], object], help_text: str) -> Any:
    """Declare an option that stays text, after a function has read it."""

    def read(text: str) -> str:
        check(text)
        return text

    return parsed_option(flag, metavar, read, help_text)


def png_option(flag: str, help_text: str) -> Any:
    """Declare an option of a picture to write, whose type is ``Path``."""

    def read(text: str) -> Path:
        path = Path(text)
        device = path.exists() and not path.is_file()
        if path.suffix.lower() != ".png" and not device:
            raise MsfnetError(f"{text} does not end in .png; name it picture.png or the like")
        return path

    return parsed_option(flag, "FILE", read, help_text)


ProviderOption = Annotated[str, checked_option("--provider", "NAME", Provider.parse, PROVIDER_HELP)]

ProtocolOption = Annotated[
    str | None,
    checked_option(
        "--protocol", "NAME", find_protocol, f"Evaluation protocol: {', '.join(PROTOCOLS)}."
    ),
]


def parse_size(text: str) -> Size:
    """Read ``HxW``.

    Raises:
        MsfnetError: it is not two whole numbers from 32 to 8192.
    """
    height, cross, width = text.lower().partition("x")
    if not (cross and height.isdecimal() and width.isdecimal()):
        raise MsfnetError(f"size {text!r} is not HxW; write for example 228x304")
    size = Size(int(height), int(width))
    if min(size) < 32 or max(size) > 8192:
        raise MsfnetError(f"size {text} is out of range; both sides go from 32 to 8192 pixels")
    return size


def parse_names(text: str) -> Names:
    """Read a list separated by commas."""
    return Names(name.strip() for name in text.split(",") if name.strip())


def parse_numbers(text: str) -> Numbers:
    """Read whole numbers separated by commas.

    Raises:
        MsfnetError: something else.
    """
    names = parse_names(text)
    if not all(name.isdecimal() for name in names):
        raise MsfnetError(f"{text!r} are not whole numbers; write for example 0,1")
    return Numbers(int(name) for name in names)


def parse_share(text: str) -> float:
    """Read a share of 0 or more: ``5%`` or ``0.05``.

    Raises:
        MsfnetError: something else.
    """
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < float("inf"):
        raise MsfnetError(f"{text!r} is not a share; write for example 5% or 0.05")
    return share
