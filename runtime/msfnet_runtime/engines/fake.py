"""Provides a fake engine, made of a spec and a function, for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.engine import EngineBase
from msfnet_runtime.spec import ModelSpec


class FakeEngine(EngineBase):
    """Runs a function in place of a network.

    Args:
        spec: the spec of the engine.
        function: computes the output of a batch; the shapes are those of the spec.
    """

    def __init__(
        self, spec: ModelSpec, function: Callable[[NDArray[Any]], NDArray[np.float32]]
    ) -> None:
        super().__init__(spec)
        self._function = function

    def describe(self) -> str:
        """Return ``fake``."""
        return "fake"

    def _run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        return self._function(batch)
