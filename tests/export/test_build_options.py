"""Options of the builder are refused in one line, or applied and recorded."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from msfnet_export import build_engine
from msfnet_export.build_options import BuildOptions, parse_profile
from msfnet_export.builder import Phases, configure, timing_cache
from msfnet_runtime import MsfnetError
from msfnet_runtime.artifacts import Flavour
from tests.networks import Exports
from tests.onnx_models import conv_model
from tests.specs import network_spec
from tests.tensorrt_types import needs_rtx

SM86 = ("sm86",)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Write the smallest model."""
    onnx.save(conv_model(network_spec()), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


REFUSED: dict[str, tuple[BuildOptions, Flavour, str]] = {
    "level": (BuildOptions(optimization_level=3), "tensorrt-rtx", "has no optimisation levels"),
    "cache": (BuildOptions(timing_cache="a.bin"), "tensorrt-rtx", "has no timing cache"),
    "version": (
        BuildOptions(version_compatible=True),
        "tensorrt-rtx",
        "has no version-compatible engines",
    ),
    "hardware": (
        BuildOptions(hardware_compatibility="ampere-plus"),
        "tensorrt-rtx",
        "no hardware compatibility; name the architectures",
    ),
    "no such level": (BuildOptions(optimization_level=6), "tensorrt", "level 6 .*0 to 5"),
    "no such compatibility": (
        BuildOptions(hardware_compatibility="turing"),  # type: ignore[arg-type]
        "tensorrt",
        "choose one of ampere-plus, same-compute-capability",
    ),
    "workspace": (BuildOptions(workspace_mib=0), "tensorrt", "workspace 0 MiB .*at least 1"),
    "static": (
        BuildOptions(profiles=(parse_profile("1x32x64:1x32x64:2x32x64"),)),
        "tensorrt-rtx",
        "this one accepts 1x3x32x64 only",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_unsupported_option_is_one_line(model: Path, tmp_path: Path, name: str) -> None:
    """Before a library is loaded; nothing is written, no option is ignored."""
    options, flavour, words = REFUSED[name]

    with pytest.raises(MsfnetError, match=words):
        build_engine(model, tmp_path / "model.engine", flavour=flavour, options=options)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@needs_rtx
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (BuildOptions(refit=True), "refitted for one architecture only, not for sm75, sm80"),
        (BuildOptions(architectures=SM86, refit=True), r"refitted on a GPU only.* \(no NVIDIA GPU"),
        (BuildOptions(strip_weights=True), "without weights on a GPU only"),
    ],
)
def test_refitting_needs_a_gpu_and_one_architecture(
    model: Path, tmp_path: Path, options: BuildOptions, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT for RTX compiles such engines with the driver; the error comes before it starts."""

    def no_device() -> None:
        raise MsfnetError("no NVIDIA GPU can be used here; run the .onnx file instead")

    monkeypatch.setattr(sys.modules["msfnet_export.build_engine"], "open_device", no_device)
    with pytest.raises(MsfnetError, match=words):
        build_engine(model, tmp_path / "model.engine", options=options)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@needs_rtx
def test_every_option_reaches_tensorrts_configuration() -> None:
    """Read back from a real configuration; both flavours share it."""
    import tensorrt_rtx as trt

    builder = trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR))
    asked = BuildOptions(
        workspace_mib=3,
        optimization_level=5,
        version_compatible=True,
        refit=True,
        strip_weights=True,
    )

    config = configure(trt, builder, "tensorrt", SM86, asked)
    plain = configure(trt, builder, "tensorrt", SM86, BuildOptions())

    names = ("VERSION_COMPATIBLE", "REFIT", "STRIP_PLAN")
    assert [config.get_flag(getattr(trt.BuilderFlag, name)) for name in names] == [True] * 3
    assert [plain.get_flag(getattr(trt.BuilderFlag, name)) for name in names] == [False] * 3
    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 3 << 20
    assert (config.builder_optimization_level, plain.builder_optimization_level) == (5, 3)


@pytest.mark.parametrize("name", ["ampere-plus", "same-compute-capability"])
def test_hardware_compatibility_is_set_or_refused(name: str) -> None:
    """The error names a version that does not support the level."""
    config = SimpleNamespace()
    builder = SimpleNamespace(create_builder_config=lambda: config)
    levels = SimpleNamespace(AMPERE_PLUS="ampere", SAME_COMPUTE_CAPABILITY="same")
    options = BuildOptions(hardware_compatibility=name)  # type: ignore[arg-type]

    library = SimpleNamespace(__version__="11.0", HardwareCompatibilityLevel=levels)
    configure(library, builder, "tensorrt", SM86, options)
    assert config.hardware_compatibility_level == name.partition("-")[0]

    older = SimpleNamespace(__version__="8.5")
    with pytest.raises(MsfnetError, match=r"TensorRT 8\.5 has no HardwareCompatibilityLevel"):
        configure(older, builder, "tensorrt", SM86, options)


class Config:
    """A configuration that knows one timing cache."""

    def __init__(self) -> None:
        self.cache = b""

    def create_timing_cache(self, content: bytes) -> Any:
        """Replaces TensorRT's method."""
        return SimpleNamespace(serialize=lambda: content + b"+timed")

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        """Refuse a cache of another device."""
        self.cache = cache
        return not ignore_mismatch and not cache.serialize().startswith(b"other")

    def get_timing_cache(self) -> Any:
        """Replaces TensorRT's method."""
        return self.cache


def test_a_timing_cache_is_created_extended_and_never_written_by_half(tmp_path: Path) -> None:
    """Written only where the build succeeds; one of another machine is refused."""
    path = tmp_path / "cache.bin"
    options = BuildOptions(timing_cache=path)

    with timing_cache(Config(), options):
        assert not path.exists()
    assert path.read_bytes() == b"+timed"
    with timing_cache(Config(), options):
        pass
    assert path.read_bytes() == b"+timed+timed"
    with pytest.raises(KeyboardInterrupt), timing_cache(Config(), options):
        raise KeyboardInterrupt
    assert path.read_bytes() == b"+timed+timed"
    path.write_bytes(b"other")
    with pytest.raises(MsfnetError, match="not a timing cache of this machine"):
        timing_cache(Config(), options).__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["cache.bin"]


@needs_rtx
def test_a_timing_cache_of_the_library_is_written(tmp_path: Path) -> None:
    """The calls are those of the real interface, which RTX keeps without effect."""
    import tensorrt_rtx as trt

    config = trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR)).create_builder_config()
    with warnings.catch_warnings(), timing_cache(config, BuildOptions(timing_cache=tmp_path / "t")):
        warnings.simplefilter("ignore")
    assert len((tmp_path / "t").read_bytes()) > 100


@needs_rtx
def test_too_small_a_workspace_gives_tensorrts_reason(exports: Exports, tmp_path: Path) -> None:
    """The limit reaches TensorRT."""
    options = BuildOptions(architectures=SM86, workspace_mib=1)

    with pytest.raises(MsfnetError, match="workspace"):
        build_engine(exports.plain.artifact.path, tmp_path / "model.engine", options=options)
    assert not list(tmp_path.iterdir())


@needs_rtx
def test_verbose_prints_tensorrts_own_messages(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, and only when asked."""
    build_engine(model, tmp_path / "a.engine", options=BuildOptions(architectures=SM86))
    silent = capsys.readouterr()
    options = BuildOptions(architectures=SM86, verbose=True)
    build_engine(model, tmp_path / "b.engine", options=options)
    loud = capsys.readouterr()

    assert (silent.out, silent.err, loud.out) == ("", "", "")
    assert "VERBOSE: " in loud.err
    assert "INFO: " in loud.err


def test_progress_reports_phase_steps_time_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The innermost unfinished phase with several steps is reported, with its time left."""
    now = [100.0]
    monkeypatch.setattr("msfnet_export.builder.time.monotonic", lambda: now[0])
    reported: list[tuple[int, int, str]] = []
    phases = Phases()

    phases.start("Build", None, 4)
    phases.start("Time", "Build", 10)
    phases.start("Once", "Time", 1)
    now[0] = 102.0
    phases.report(lambda *line: reported.append(line))
    assert phases.step("Time", 3)
    phases.report(lambda *line: reported.append(line))
    phases.step("Time", 9)
    phases.step("Build", 0)
    phases.report(lambda *line: reported.append(line))
    phases.finish("Time")
    phases.report_end(lambda *line: reported.append(line))
    phases.cancelled = True

    assert reported == [
        (0, 10, "Time, 2.0 s"),
        (4, 10, "Time, 2.0 s, about 3.0 s left"),
        (1, 4, "Build, 2.0 s, about 6.0 s left"),
        (4, 4, "Build, 2.0 s"),
    ]
    assert not phases.step("Build", 1)
