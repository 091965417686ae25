"""TensorRT's builder: its configuration from our options, its log, its progress, and Ctrl-C."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msfnet_export.build_options import BuildOptions
from msfnet_runtime import MsfnetError
from msfnet_runtime.artifacts import Flavour, ShapeRange
from msfnet_runtime.files import atomic_path
from msfnet_runtime.progress import Progress

_SECONDS_BETWEEN_REPORTS = 0.5


def configure(
    trt: Any,
    builder: Any,
    flavour: Flavour,
    architectures: Sequence[str],
    options: BuildOptions,
) -> Any:
    """Return the builder's configuration without profiles and timing cache.

    Raises:
        MsfnetError: this version of TensorRT lacks an option that is set.
    """
    config = builder.create_builder_config()
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.hardware_compatibility is not None:
        name = options.hardware_compatibility.replace("-", "_").upper()
        config.hardware_compatibility_level = _feature(trt, "HardwareCompatibilityLevel", name)
    for name, wanted in _flags(options).items():
        if wanted:
            config.set_flag(_feature(trt, "BuilderFlag", name))
    if flavour == "tensorrt-rtx":
        config.num_compute_capabilities = len(architectures)
        for index, name in enumerate(architectures):
            config.set_compute_capability(getattr(trt.ComputeCapability, name.upper()), index)
    return config


def _flags(options: BuildOptions) -> Mapping[str, bool]:
    return {
        "VERSION_COMPATIBLE": options.version_compatible,
        "REFIT": options.refit,
        "STRIP_PLAN": options.strip_weights,
    }


def _feature(trt: Any, kind: str, name: str) -> Any:
    """Return a member of one of TensorRT's enumerations.

    Raises:
        MsfnetError: this version has no such member.
    """
    value = getattr(getattr(trt, kind, None), name, None)
    if value is None:
        raise MsfnetError(f"TensorRT {trt.__version__} has no {kind}.{name}; leave the option out")
    return value


@contextmanager
def timing_cache(config: Any, options: BuildOptions) -> Iterator[None]:
    """Let the builder use the timing cache of a file, and extend it once the engine is written.

    Raises:
        MsfnetError: the file is not a timing cache, or is of another machine or version.
    """
    if options.timing_cache is None:
        yield
        return
    path = Path(options.timing_cache)
    known = path.read_bytes() if path.exists() else b""
    cache = config.create_timing_cache(known)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise MsfnetError(
            f"{path} is not a timing cache of this machine and TensorRT; remove it",
            parameter="timing_cache",
        )
    yield
    with atomic_path(path) as partial:
        partial.write_bytes(config.get_timing_cache().serialize())


def add_profiles(builder: Any, config: Any, name: str, profiles: Sequence[ShapeRange]) -> None:
    """Add the shapes of its input that a dynamic engine accepts.

    Raises:
        MsfnetError: TensorRT refuses one.
    """
    for shapes in profiles:
        profile = builder.create_optimization_profile()
        profile.set_shape(name, *shapes)
        if config.add_optimization_profile(profile) < 0:
            raise MsfnetError(f"TensorRT refuses the profile {shapes} of {name}; give another")


def make_logger(trt: Any, verbose: bool) -> Any:
    """Return a logger that keeps errors for our own line and prints nothing unless verbose."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        """Keeps TensorRT's errors; the first is the reason of the others."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            """Receive one message from TensorRT."""
            if verbose:
                print(f"{severity.name}: {message}", file=sys.stderr, flush=True)
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))

        def reason(self) -> str:
            """Return why TensorRT failed."""
            return self.errors[0][:300] if self.errors else "TensorRT gives no reason"

    return Logger()


@dataclass
class _Phase:
    steps: int
    started: float
    done: int = 0

    def text(self, name: str) -> str:
        """Return the phase's name, the time it has run and, once a step is done, the time left."""
        seconds = time.monotonic() - self.started
        left = seconds * (self.steps - self.done) / self.done if self.done else 0.0
        return f"{name}, {seconds:.1f} s" + (f", about {left:.1f} s left" if left else "")


class Phases:
    """The builder's phases, as its progress monitor reports them."""

    def __init__(self) -> None:
        self.cancelled = False
        self._open: dict[str, _Phase] = {}
        self._whole: tuple[str, _Phase] | None = None

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Add a phase; the first without a parent is the whole build."""
        self._open[name] = _Phase(steps, time.monotonic())
        if not parent and self._whole is None:
            self._whole = name, self._open[name]

    def step(self, name: str, step: int) -> bool:
        """Count a step; False asks the builder to stop."""
        if name in self._open:
            self._open[name].done = step + 1
        return not self.cancelled

    def finish(self, name: str) -> None:
        """Remove a phase."""
        self._open.pop(name, None)

    def report(self, progress: Progress) -> None:
        """Report the innermost unfinished phase, one of several steps if there is any."""
        running = [item for item in list(self._open.items()) if item[1].done < item[1].steps]
        if running:
            longer = [item for item in running if item[1].steps > 1]
            name, phase = (longer or running)[-1]
            progress(phase.done, phase.steps, phase.text(name))

    def report_end(self, progress: Progress) -> None:
        """Report how long the whole build took."""
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
            """Receive the start of a phase."""
            phases.start(phase, parent, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            """Receive a finished step."""
            return phases.step(phase, step)

        def phase_finish(self, phase: str) -> None:
            """Receive the end of a phase."""
            phases.finish(phase)

    return Monitor()


def run_builder(trt: Any, builder: Any, network: Any, config: Any, progress: Progress) -> Any:
    """Build, and return the serialised engine; None where TensorRT refuses.

    The builder works in a separate thread, so that Ctrl-C is received at once and the elapsed
    time is reported during TensorRT's long steps.

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
