"""Runs the whole pipeline on generated streets."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msfnet.candidates import order_candidates
from msfnet.cli.console import progress
from msfnet.models import open_model
from msfnet_benchmarks.bench import BenchPlan, bench
from msfnet_benchmarks.report import tables
from msfnet_benchmarks.report.writer import write_page
from msfnet_runtime import EngineArtifact, MsfnetError
from msfnet_runtime.cuda.device import open_device
from msfnet_runtime.streaming import StreamOptions, stream

if TYPE_CHECKING:
    from msfnet_benchmarks.report.report import BenchmarkReport
    from msfnet_runtime.stream_stats import StreamStats
    from msfnet_train.run import TrainReport

MARKER = ".msfnet-demo"
"""The file that marks a demo's folder, so that nothing else is ever replaced."""

PROTOCOL = "kitti_raw"
ARCHITECTURES = ("sm86", "sm89")
FRAME_SIZE = (375, 1242)
"""The size of KITTI's frames, pixels."""

_MADE = {
    "video": "drive.mp4",
    "report": "report.html",
    "checkpoint": "run/best.ckpt",
    "models": "models",
    "scenes": "data",
}
"""What a demo leaves in its folder, as its last lines name it."""

_OWN = ("data", "models", "run", "drive.mp4", "report.html", "report.json")
"""What the next demo in that folder removes; other files there stay."""

_TRAIN_DRIVES, _TRAIN_FRAMES = 6, 16
_TEST_FRAMES = 40
_CALIBRATION_FRAMES = 24
_BENCH_FRAMES = 12


@dataclass(frozen=True)
class DemoReport:
    """The files and the measurements of a demo."""

    folder: Path
    training: TrainReport
    benchmark: BenchmarkReport
    engines: tuple[EngineArtifact, ...]
    stream: StreamStats
    seconds: float
    """The time of the whole demo."""

    def text(self) -> str:
        """Return the table and the paths of everything made."""
        built = [
            f"  {e.path.name}: {e.spec.precision.upper()}, for {', '.join(e.architectures)}, "
            f"{e.bytes / 1e6:.1f} MB, not run: {_why_not_run(e)}"
            for e in self.engines
        ]
        return "\n".join(
            [
                "",
                f"Unseen generated drive, protocol {PROTOCOL}, latency on this machine's CPU:",
                tables.text(self.benchmark),
                "",
                f"TensorRT for RTX {self.engines[0].version} engines, built without a GPU:",
                *built,
                "",
                *(f"{name:<11}{self.folder / path}" for name, path in _MADE.items()),
                f"{'time':<11}{self.seconds:.0f} s",
            ]
        )


def _why_not_run(engine: EngineArtifact) -> str:
    """Return why the table lacks an engine: no GPU, or the table is one of the CPU."""
    try:
        device = open_device()
    except MsfnetError:
        return "no GPU here"
    device.close()
    if device.architecture in engine.architectures:
        return "the table is of the CPU, and msfnet bench measures engines"
    return f"the GPU here is {device.architecture}"


def run_demo(out: Path, *, seed: int = 0, force: bool = False) -> DemoReport:
    """Generate, train, export, calibrate, build, stream and measure.

    Args:
        out: folder for everything it makes.
        seed: of scenes and training.
        force: replace an earlier demo in ``out``.

    Raises:
        MsfnetError: ``out`` is in use or cannot be written, or a stage fails.
    """
    started = time.monotonic()
    _prepare_folder(out, force)
    _synthesize(out / "data", seed)
    training = _train(out, seed)
    models, to_build = _export(out)
    engines = tuple(_build(model) for model in to_build)
    test = out / "data/test"
    with progress("stream") as report, open_model(models[1]) as engine:
        options = StreamOptions(out=(str(out / "drive.mp4"),))
        streamed = stream(engine, str(test), options, progress=report)
    with progress("bench") as report:
        plan = BenchPlan(data=test, protocol=PROTOCOL, frames=_BENCH_FRAMES, pictures=True)
        candidates = order_candidates(models, against=training.best)
        benchmark, pictures = bench(candidates, plan, baseline=candidates[0].name, progress=report)
    write_page(benchmark, out / "report.html", pictures)
    return DemoReport(out, training, benchmark, engines, streamed, time.monotonic() - started)


def _prepare_folder(out: Path, force: bool) -> None:
    if out.is_dir() and any(out.iterdir()):
        if not (out / MARKER).is_file():
            raise MsfnetError(
                f"{out} holds other files than a demo's; choose another folder", parameter="out"
            )
        if not force:
            raise MsfnetError(f"{out} exists already; replace the earlier demo", parameter="force")
        for name in _OWN:
            path = out / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / MARKER).touch()
    except OSError as error:
        raise MsfnetError(
            f"cannot write {out}: {error.strerror}; choose another folder", parameter="out"
        ) from None


def _synthesize(data: Path, seed: int) -> None:
    from msfnet_datasets.synthesize import synthesize_kitti

    for name, drives, frames, first in (
        ("train", _TRAIN_DRIVES, _TRAIN_FRAMES, seed),
        ("test", 1, _TEST_FRAMES, seed + 1000),
    ):
        with progress(f"synthesize {name} data") as report:
            synthesize_kitti(data / name, drives=drives, frames=frames, seed=first, progress=report)


def _train(out: Path, seed: int) -> TrainReport:
    from msfnet_train.recipe import load_recipe
    from msfnet_train.run import train

    recipe = load_recipe("quick", [f"trainer.seed={seed}"])
    with progress("train") as report:
        return train(recipe, out / "data/train", out / "run", progress=report)


def _export(out: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Write the deploy graphs; return those to measure here, and those to build engines from.

    Both by falling precision: FP32, FP16, INT8.
    """
    from msfnet_calibration import convert_fp16, quantize_int8, select_frames
    from msfnet_export import export_checkpoint
    from msfnet_export.export_options import ExportOptions
    from msfnet_runtime.sources import open_source

    names = "fp32", "fp16", "int8", "int8_tensorrt"
    fp32, fp16, int8, int8_tensorrt = (out / f"models/{name}.onnx" for name in names)
    with progress("export") as report:
        options = ExportOptions(frame_size=FRAME_SIZE)
        export_checkpoint(out / "run/best.ckpt", fp32, options, progress=report)
    with open_source(str(out / "data/train")) as source:
        frames = select_frames(source, _CALIBRATION_FRAMES)
    with progress("convert to FP16") as report:
        convert_fp16(fp32, fp16, frames=frames[:4], progress=report)
    with progress("calibrate INT8") as report:
        # The table at the end is measured on the CPU.
        quantize_int8(fp32, int8, frames, runs_on="cpu", progress=report)
    with progress("calibrate INT8 for TensorRT") as report:
        quantize_int8(fp32, int8_tensorrt, frames, progress=report)
    return (fp32, fp16, int8), (fp32, fp16, int8_tensorrt)


def _build(model: Path) -> EngineArtifact:
    from msfnet_export import build_engine
    from msfnet_export.build_options import BuildOptions

    with progress(f"build {model.stem} engine") as report:
        options = BuildOptions(architectures=ARCHITECTURES)
        return build_engine(model, model.with_suffix(".engine"), options=options, progress=report)
