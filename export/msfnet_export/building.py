"""Runs TensorRT's builder in a thread of its own: tells how far it is, and stops it on Ctrl-C."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from msfnet_runtime.progress import Progress

_SECONDS_BETWEEN_REPORTS = 0.5


def make_logger(trt: Any, verbose: bool) -> Any:
    """Return a logger that keeps errors for our own line and prints nothing unless verbose."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        """Its ``reason`` is the first error; the later ones follow from it."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            """Take one message from TensorRT."""
            if verbose:
                print(f"{severity.name}: {message}", file=sys.stderr, flush=True)
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))

        def reason(self) -> str:
            """Return why something failed."""
            return self.errors[0][:300] if self.errors else "it gives no reason"

    return Logger()


@dataclass
class _Phase:
    steps: int
    started: float
    done: int = 0

    def text(self, name: str) -> str:
        """Name the phase with the time it has taken and, if it can be told, the time it needs."""
        seconds = time.monotonic() - self.started
        left = seconds * (self.steps - self.done) / self.done if self.done else 0.0
        return f"{name}, {seconds:.1f} s" + (f", about {left:.1f} s left" if left else "")


class Phases:
    """What the builder is at, as its monitor tells."""

    def __init__(self) -> None:
        self.cancelled = False
        self._open: dict[str, _Phase] = {}
        self._whole: tuple[str, _Phase] | None = None

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Note a phase; the first without a parent is the whole build."""
        self._open[name] = _Phase(steps, time.monotonic())
        if not parent and self._whole is None:
            self._whole = name, self._open[name]

    def step(self, name: str, step: int) -> bool:
        """Note a step; False asks the builder to stop."""
        if name in self._open:
            self._open[name].done = step + 1
        return not self.cancelled

    def finish(self, name: str) -> None:
        """Forget a phase."""
        self._open.pop(name, None)

    def report(self, progress: Progress) -> None:
        """Tell of the innermost phase that is not through with its steps and has several."""
        running = [item for item in list(self._open.items()) if item[1].done < item[1].steps]
        if running:
            telling = [item for item in running if item[1].steps > 1]
            name, phase = (telling or running)[-1]
            progress(phase.done, phase.steps, phase.text(name))

    def report_end(self, progress: Progress) -> None:
        """Tell how long the whole took."""
        if self._whole is not None:
            name, phase = self._whole
            phase.done = phase.steps
            progress(phase.steps, phase.steps, phase.text(name))


def _make_monitor(trt: Any, phases: Phases) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Passes TensorRT's phases on."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            """Take the start of a phase."""
            phases.start(phase, parent, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            """Take a step."""
            return phases.step(phase, step)

        def phase_finish(self, phase: str) -> None:
            """Take the end of a phase."""
            phases.finish(phase)

    return Monitor()


def run_builder(trt: Any, builder: Any, network: Any, config: Any, progress: Progress) -> Any:
    """Build, and return the serialised engine; None where TensorRT refuses.

    The builder works in a thread of its own, so that Ctrl-C is heard at once and time goes on
    being told during TensorRT's long steps.

    Raises:
        KeyboardInterrupt: once the builder has stopped, at the end of its step.
    """
    phases = Phases()
    config.progress_monitor = _make_monitor(trt, phases)
    with ThreadPoolExecutor(1, thread_name_prefix="tensorrt") as thread:
        plan = thread.submit(builder.build_serialized_network, network, config)
        try:
            while not wait([plan], _SECONDS_BETWEEN_REPORTS).done:
                phases.report(progress)
        except BaseException:
            phases.cancelled = True
            raise
    if plan.result() is not None:
        phases.report_end(progress)
    return plan.result()
