"""A checkpoint as an engine, so that PyTorch is timed and scored by the same code as the rest."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from msfnet_runtime.engine import EngineBase
from msfnet_train.checkpoint import load_checkpoint
from msfnet_train.network import MSFNet


class TorchEngine(EngineBase):
    """Runs a checkpoint's network graph in PyTorch, in evaluation mode.

    Args:
        path: the checkpoint.
        device: ``cpu`` or ``cuda``; a GPU when there is one, if left out.

    Raises:
        MsfnetError: the checkpoint cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], device: str | None = None) -> None:
        checkpoint = load_checkpoint(path)
        super().__init__(checkpoint.spec)
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._network: MSFNet | None = checkpoint.network.to(self._device)

    def describe(self) -> str:
        """Name PyTorch, its version and the device."""
        name = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else "CPU"
        return f"PyTorch {torch.__version__} on {name}"

    def _run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        assert self._network is not None
        with torch.inference_mode():
            output = self._network(torch.from_numpy(batch).to(self._device))
        return np.array(output.float().cpu().numpy())

    def _release(self) -> None:
        self._network = None
