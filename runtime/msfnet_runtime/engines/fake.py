"""A fake engine: a spec and a function. It drives the tests, ours and our users'."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.engine import EngineBase
from msfnet_runtime.spec import ModelSpec


class FakeEngine(EngineBase):
    """Runs ``function`` where a real engine would run a network.

    Args:
        spec: what the engine claims to take and give.
        function: batch to output, shaped as the spec says.
    """

    def __init__(
        self, spec: ModelSpec, function: Callable[[NDArray[Any]], NDArray[np.float32]]
    ) -> None:
        super().__init__(spec)
        self._function = function

    def describe(self) -> str:
        """Say that nothing real runs."""
        return "fake"

    def _run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        return self._function(batch)
