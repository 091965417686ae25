"""The engine protocol: anything that turns a batch into a batch and knows its spec."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.closing import Closing
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.spec import ModelSpec

if TYPE_CHECKING:
    from typing_extensions import Self


@runtime_checkable
class Engine(Protocol):
    """One loaded model."""

    @property
    def thread_safe(self) -> bool:
        """Whether several threads may infer at once."""

    @property
    def spec(self) -> ModelSpec:
        """What the model takes and gives."""

    def infer(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Run one batch shaped and typed as ``spec.inputs[0]``; return ``spec.outputs[0]``.

        Raises:
            MsfnetError: another shape or type, or the engine is closed.
        """

    def close(self) -> None:
        """Give back all memory; closing twice is allowed."""

    def describe(self) -> str:
        """Name what really runs the model: library, version, provider or device."""

    def __enter__(self) -> Self:
        """Return the engine itself."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the engine."""


class EngineBase(Closing):
    """The lifecycle and the checks that every engine shares; subclasses run the batch."""

    thread_safe = False

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._open = True

    @property
    def spec(self) -> ModelSpec:
        """What the model takes and gives."""
        return self._spec

    def infer(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Check the batch, run it, return the first output."""
        if not self._open:
            raise MsfnetError("the engine is closed; open it again")
        check_batch(batch, self._spec)
        return self._run(np.ascontiguousarray(batch))

    def close(self) -> None:
        """Give back all memory; closing twice is allowed."""
        if self._open:
            self._open = False
            self._release()

    def _run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        raise AssertionError(f"{type(self).__name__} does not run batches")

    def _release(self) -> None:
        """Free what the engine holds; nothing by default."""


def check_batch(batch: NDArray[Any], spec: ModelSpec) -> None:
    """Compare a batch with the model's input.

    Raises:
        MsfnetError: naming what came and what the model takes.
    """
    wanted = spec.inputs[0]
    fits = len(batch.shape) == len(wanted.shape) and all(
        isinstance(want, str) or want == got
        for want, got in zip(wanted.shape, batch.shape, strict=True)
    )
    if not fits or batch.dtype != np.dtype(wanted.dtype):
        raise MsfnetError(
            f"the model's input {wanted.name!r} is {_shape(wanted.shape)} {wanted.dtype}, "
            f"not {_shape(batch.shape)} {batch.dtype}; export at that size, or let "
            "DepthEstimator prepare the frame"
        )


def _shape(shape: tuple[int | str, ...]) -> str:
    return "x".join(str(dimension) for dimension in shape)
