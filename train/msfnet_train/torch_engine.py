"""Opens checkpoints as PyTorch engines, which are timed and scored like every other engine."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from msfnet_runtime.engine import EngineBase
from msfnet_runtime.errors import MsfnetError
from msfnet_train.checkpoint import load_checkpoint

MODES = ("eager", "channels-last", "compile", "autocast", "cuda-graph")
"""Ways in which PyTorch can run a network."""

_CAPTURE_WARMUP = 3

Forward = Callable[[torch.Tensor], torch.Tensor]
"""Maps an input batch to the network's output, both on the engine's device."""


class TorchEngine(EngineBase):
    """Runs a checkpoint's network graph in PyTorch, in evaluation mode.

    Args:
        path: the checkpoint.
        device: ``cpu`` or ``cuda``; None selects a GPU if there is one.
        mode: one of :data:`MODES`: ``channels-last`` keeps values and weights as NHWC in memory;
            ``compile`` uses ``torch.compile`` and compiles before the constructor returns;
            ``autocast`` computes in bfloat16 on a CPU and in float16 on a GPU; ``cuda-graph``
            replays the work for one image as a CUDA graph.
        threads: CPU threads. PyTorch has one setting for the whole process, so the engine opened
            last decides for all. 0 leaves the setting unchanged.
        weights: an engine of the same checkpoint that shares its weights, so that they are not
            read again; ``channels-last`` copies them because it changes their layout.

    Raises:
        MsfnetError: the checkpoint cannot be read, or the mode is unknown or unavailable here.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        device: str | None = None,
        *,
        mode: str = "eager",
        threads: int = 0,
        weights: TorchEngine | None = None,
    ) -> None:
        self._device = torch.device(device or usual_device())
        self._mode = mode
        check_mode(mode, self._device.type)
        if threads:
            torch.set_num_threads(threads)
        if weights is None:
            checkpoint = load_checkpoint(path)
            super().__init__(checkpoint.spec)
            self._network: torch.nn.Module | None = checkpoint.network.to(self._device)
        else:
            super().__init__(weights.spec)
            self._network = weights._network
        assert self._network is not None
        with torch.inference_mode():
            self._forward: Forward | None = self._prepared(self._network)

    def describe(self) -> str:
        """Return PyTorch's version, the device and the mode as text."""
        name = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else "CPU"
        mode = "" if self._mode == "eager" else f", {self._mode}"
        return f"PyTorch {torch.__version__} on {name}{mode}"

    def count(self) -> tuple[int, int]:
        """Return the multiply-accumulate operations for one image and the parameters.

        Both are those of the network as trained; an export has fewer, because its passes fold
        operations into the weights.
        """
        assert self._network is not None
        counter = FlopCounterMode(display=False)
        with torch.inference_mode(), counter:
            self._network(self._example())
        parameters = sum(parameter.numel() for parameter in self._network.parameters())
        return counter.get_total_flops() // 2, parameters

    def _run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        assert self._forward is not None
        with torch.inference_mode():
            output = self._forward(torch.from_numpy(batch).to(self._device))
        return np.array(output.float().cpu().numpy())

    def _release(self) -> None:
        self._network = self._forward = None

    def _prepared(self, network: torch.nn.Module) -> Forward:
        """Return the network as the mode runs it, already compiled or captured if it needs that."""
        if self._mode == "channels-last":
            layout = torch.channels_last
            converted = copy.deepcopy(network).to(memory_format=layout)
            return lambda batch: converted(batch.contiguous(memory_format=layout))
        if self._mode == "autocast":
            kind = torch.float16 if self._device.type == "cuda" else torch.bfloat16
            autocast: Forward = torch.autocast(self._device.type, dtype=kind)(network.__call__)
            return autocast
        if self._mode == "compile":
            return _compiled(network, self._example())
        if self._mode == "cuda-graph":
            return _captured(network, self._example())
        return network

    def _example(self) -> torch.Tensor:
        """Return one image of zeros of the model's size on the engine's device."""
        return torch.zeros((1, 3, *self._spec.size), device=self._device)


def usual_device() -> str:
    """Return ``cuda`` where PyTorch has a GPU, else ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_mode(mode: str, device: str | None = None) -> None:
    """Check that PyTorch can run a network in this mode on this device.

    Args:
        mode: one of :data:`MODES`.
        device: ``cpu`` or ``cuda``; None selects a GPU if there is one.

    Raises:
        MsfnetError: the mode is unknown, ``cuda-graph`` without a GPU, or ``compile`` without a
            C++ compiler.
    """
    device = device or usual_device()
    if mode not in MODES:
        raise MsfnetError(f"PyTorch has no mode {mode!r}; choose among {', '.join(MODES)}")
    if mode == "cuda-graph" and device != "cuda":
        raise MsfnetError("mode cuda-graph needs a GPU; choose another mode")
    compilers = (os.environ.get("CXX", ""), "g++", "clang++", "c++", "cl")
    if mode == "compile" and not any(shutil.which(name) for name in compilers if name):
        raise MsfnetError("mode compile needs a C++ compiler; install g++ or choose another mode")


def _compiled(network: torch.nn.Module, example: torch.Tensor) -> Forward:
    """Return the network compiled for the example's shape.

    Raises:
        MsfnetError: PyTorch's compiler failed.
    """
    compiled: Forward = torch.compile(network)
    try:
        compiled(example)
    except Exception as error:  # noqa: BLE001 - what a compiler raises shares no base class
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MsfnetError(f"torch.compile failed ({reason}); choose another mode") from None
    return compiled


def _captured(network: torch.nn.Module, example: torch.Tensor) -> Forward:
    """Capture the network's work on a batch of the example's shape and return its replay.

    The work runs a few times on a side stream first, as CUDA graph capture requires: lazy
    initialisation must not be captured.
    """
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # PyTorch does not annotate it
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_CAPTURE_WARMUP):
            network(example)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        answer: torch.Tensor = network(example)

    def replay(batch: torch.Tensor) -> torch.Tensor:
        example.copy_(batch)
        graph.replay()
        return answer

    return replay
