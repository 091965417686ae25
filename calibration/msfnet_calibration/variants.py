"""The forms one FP32 model can take: some units in INT8, the rest in FP32 or FP16."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from msfnet_benchmarks.machine import has_int8_products
from msfnet_calibration.fp16 import to_fp16
from msfnet_calibration.fp16_check import (
    Islands,
    find_islands,
    float_values,
    probe_values,
    relative_changes,
)
from msfnet_calibration.onnx_files import load_fp32, onnx_path, save_model
from msfnet_calibration.quantize import (
    MIN_CHANNELS,
    find_units,
    insert_pairs,
    is_narrow,
    prepare_frames,
    tensors_beside,
)
from msfnet_calibration.ranges import ActivationRanges, collect_ranges
from msfnet_datasets.frame_statistics import describe_frame, summarise_frames
from msfnet_runtime import Frame, MsfnetError, OnnxArtifact
from msfnet_runtime.files import check_outputs, sha256
from msfnet_runtime.precision_records import (
    CalibrationMethod,
    CalibrationRecord,
    CalibrationTarget,
    DepthChange,
    SearchRecord,
)
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.spec import Precision

_COMPARED = 8
"""Calibration frames on which depth is compared and FP16's ranges are probed."""


@dataclass(frozen=True)
class Choice:
    """The units of a model that are in INT8, and the precision of the rest."""

    int8: tuple[str, ...]
    """Units of :func:`msfnet_calibration.quantize.find_units`, sorted."""
    half: bool = False
    """The rest is in FP16 (with its FP32 islands), not in FP32."""

    @classmethod
    def of(cls, units: Sequence[str] | set[str], half: bool = False) -> Choice:
        """Return a choice of units in any order."""
        return cls(tuple(sorted(units)), half)

    @property
    def key(self) -> str:
        """Name of the choice; equal choices have equal names."""
        return f"{'fp16' if self.half else 'fp32'}:{','.join(self.int8)}"

    @property
    def precision(self) -> Precision:
        """The spec's precision: the lowest one in the model."""
        return "int8" if self.int8 else "fp16" if self.half else "fp32"


class Variants:
    """Makes the forms of one model, from activation statistics that are collected once.

    Args:
        source: an FP32 ONNX file made by msfnet.
        frames: calibration frames.
        method: how ranges are chosen.
        runs_on: where the files are to run.
        reduced_range: as :func:`quantize_int8` has it.
        folder: where the statistics are kept.
        progress: called after every frame.

    Raises:
        MsfnetError: not an FP32 model, nothing in it to quantise, or too few frames.
    """

    def __init__(
        self,
        source: Path,
        frames: Sequence[Frame],
        *,
        method: CalibrationMethod,
        runs_on: CalibrationTarget,
        reduced_range: bool | None = None,
        folder: Path | None,
        progress: Progress = silent,
    ) -> None:
        if runs_on == "tensorrt" and reduced_range:
            raise MsfnetError(
                "a reduced range is for processors, not for TensorRT; leave it out",
                parameter="reduced_range",
            )
        self.source = source
        self._model, self.spec = load_fp32(source, "calibrate")
        self._method: CalibrationMethod = method
        self._runs_on: CalibrationTarget = runs_on
        if reduced_range is None:
            reduced_range = runs_on == "cpu" and not has_int8_products()
        self._reduced_range = reduced_range
        self.batches: list[NDArray[Any]] = prepare_frames(frames, self.spec)
        self._summary = summarise_frames((frame, describe_frame(frame)) for frame in frames)
        self.units = find_units(self._model)
        if not self.units:
            raise MsfnetError(
                f"{source} has no convolution of {MIN_CHANNELS} channels or more; keep it in fp16"
            )
        self._ranges: ActivationRanges = collect_ranges(
            self._model,
            tensors_beside(
                self._model, [n for nodes in self.units.values() for n in nodes], runs_on
            ),
            self.batches,
            folder=folder,
            progress=progress,
        )

    @property
    def blanket(self) -> Choice:
        """All units but the narrow ones; where there are only those, all."""
        return Choice.of([name for name in self.units if not is_narrow(name)] or list(self.units))

    def make(self, choice: Choice) -> ir.Model:
        """Return the model in one form."""
        nodes = [node for unit in choice.int8 for node in self.units[unit]]
        model = insert_pairs(
            self._model,
            nodes,
            self._ranges,
            self._method,
            self._runs_on,
            reduced_range=self._reduced_range,
        )
        if not choice.half:
            return model
        return to_fp16(model, self._islands.wide, keep_nodes=self._islands.sums)

    def write(
        self,
        choice: Choice,
        path: str | os.PathLike[str],
        *,
        change: DepthChange | None = None,
        search: SearchRecord | None = None,
        model: ir.Model | None = None,
    ) -> None:
        """Write the model in one form, whole or not at all.

        Args:
            choice: the form.
            path: an ONNX file.
            change: how far it moves depth, for the spec.
            search: what the precision search measured, for the spec.
            model: of :meth:`make`, where that was called already.

        Raises:
            MsfnetError: it cannot be written.
        """
        count = sum(len(self.units[unit]) for unit in choice.int8)
        calibration = CalibrationRecord(
            self._method,
            self._runs_on,
            count,
            len(self.batches),
            self._summary,
            activations="uint8" if self._runs_on == "cpu" else "int8",
            reduced_range=self._reduced_range,
        )
        spec = replace(
            self.spec,
            precision=choice.precision,
            calibration=calibration if choice.int8 else None,
            change=change,
            search=search,
        )
        save_model(model or self.make(choice), path, spec)

    def measure_change(self, model: ir.Model) -> DepthChange:
        """Return how far a form's depth on calibration frames is from FP32's.

        Raises:
            MsfnetError: its depth is not finite.
        """
        batches = self.batches[:_COMPARED]
        answers, expected = (probe_values(m, (), batches).answers for m in (model, self._model))
        if not np.isfinite(answers).all():
            raise MsfnetError("the INT8 model's depth is not finite; calibrate on more frames")
        median, p99 = relative_changes(answers, expected, self.spec).max(axis=0)
        return DepthChange(float(median), float(p99), len(batches))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the source, the calibration frames, and all that decides how files are made."""
        digest = hashlib.sha256(
            f"{self._method} {self._runs_on} {self._reduced_range} uint8".encode()
        )
        digest.update(sha256(self.source).encode())
        for batch in self.batches:
            digest.update(batch.tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def _islands(self) -> Islands:
        names = float_values(self._model)
        probe = probe_values(self._model, names, self.batches[:_COMPARED])
        return find_islands(self._model, probe.peaks, self.spec.size)


def quantize_int8(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    frames: Sequence[Frame],
    *,
    method: CalibrationMethod = "percentile",
    runs_on: CalibrationTarget = "tensorrt",
    reduced_range: bool | None = None,
    folder: Path | None = None,
    progress: Progress = silent,
) -> OnnxArtifact:
    """Write an INT8 model: all convolutions but the narrow ones, with ranges from frames.

    Args:
        source: an FP32 ONNX file made by msfnet, either graph.
        target: the ONNX file to write, another than the source.
        frames: calibration frames, 4 or more; prepared as the model's spec says.
        method: ``entropy`` keeps the range that loses the least information (KL divergence),
            ``percentile`` 99.99 % of the values, ``minmax`` all of them.
        runs_on: where the file is to run, see
            :data:`~msfnet_runtime.precision_records.CalibrationTarget`.
        reduced_range: keep weights to 7 bits, for processors whose 8-bit products saturate (x86
            without VNNI); None: for the CPU target, as this processor needs.
        folder: where activation statistics are kept for another try; None: nowhere.
        progress: called after every frame.

    Raises:
        MsfnetError: not an FP32 model, the target is the source, nothing to quantise in it, too
            few frames, an unknown method, or a quantised model whose depth is not finite.
    """
    check_outputs([onnx_path(target)], inputs=[source], force=True)
    variants = Variants(
        Path(source),
        frames,
        method=method,
        runs_on=runs_on,
        reduced_range=reduced_range,
        folder=folder,
        progress=progress,
    )
    choice = variants.blanket
    model = variants.make(choice)
    variants.write(choice, target, change=variants.measure_change(model), model=model)
    return OnnxArtifact.read(target)
