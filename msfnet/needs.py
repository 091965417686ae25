"""Lists the optional libraries that each command needs, so that they are checked before any work.

Engines, live sources and outputs check their own when they are opened, which is before any frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from msfnet_runtime.engines.tensorrt import MODULES

TORCH = ("torch", "torchvision", "timm")
"""Run a checkpoint."""
TRAIN = (*TORCH, "lightning", "tensorboard", "matplotlib")
CALIBRATE = ("onnx", "onnx_ir", "onnxruntime")
EXPORT = (*TORCH, "onnxscript", "onnxsim", *CALIBRATE)
FIGURES = ("matplotlib",)
REPORT = ("plotly",)
VIDEO = ("av",)
PAGE = ("starlette", "uvicorn", "websockets")
RTX = ("tensorrt_rtx",)

Options = Mapping[str, Any]
"""A command's arguments and options, by the names of its parameters."""


def _model(path: Path | None, provider: str = "cpu") -> Iterator[str]:
    """Yield what opens a model; an engine's library is that of its manifest."""
    from msfnet.models import CHECKPOINT_SUFFIXES

    suffix = path.suffix if path else ""
    if suffix in CHECKPOINT_SUFFIXES:
        yield from TORCH
    elif suffix == ".onnx":
        yield "openvino" if provider.startswith("openvino") else "onnxruntime"


def _evaluate(options: Options) -> Iterator[str]:
    yield from _model(options["model"], options["provider"])
    yield from _model(options["against"], options["provider"])
    yield from FIGURES if options["sheet"] else ()


def _calibrate(options: Options) -> Iterator[str]:
    yield from CALIBRATE
    yield from FIGURES if options["budget"] or options["sensitivity"] else ()


def _bench(options: Options) -> Iterator[str]:
    baseline = options["against"]
    models = [*(options["models"] or []), *([Path(baseline)] if baseline else [])]
    for provider in options["provider"] or ["cpu"]:
        for path in (*models, *(options["peer"] or [])):
            yield from _model(path, provider)
    yield from ("onnx",) if options["peer"] else ()
    yield from TORCH if baseline == "pytorch" else ()
    yield from EXPORT if options["sweep"] else ()
    yield from REPORT if options["report"] else ()


def _inspect(options: Options) -> Iterator[str]:
    path: Path = options["model"]
    yield from () if path.suffix == ".onnx" else _model(path)
    yield from FIGURES if options["plot"] else ()


NEEDS: dict[str, Callable[[Options], Iterator[str]]] = {
    "demo": lambda options: iter((*TRAIN, *EXPORT, *RTX, *VIDEO, *REPORT)),
    "data check": lambda options: iter(FIGURES if options["sheet"] else ()),
    "train": lambda options: iter(TRAIN),
    "evaluate": _evaluate,
    "export": lambda options: iter(EXPORT),
    "calibrate": _calibrate,
    "build": lambda options: iter((MODULES[options["flavour"]],)),
    "stream": lambda options: _model(options["model"], options["provider"]),
    "bench": _bench,
    "latency": lambda options: _model(options["model"], options["provider"]),
    "inspect": _inspect,
}
"""What a command needs with these options; the others need none."""
