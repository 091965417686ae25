"""Provides engines on a simulated GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from msfnet_runtime.engines import tensorrt
from msfnet_runtime.engines.tensorrt import TensorRTEngine
from tests.manifests import write_engine
from tests.runtime.fake_cuda import FakeDevice
from tests.runtime.fake_tensorrt import FakeTensorRT, Open


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Return an opener of engines; each must free all its resources."""
    devices: list[FakeDevice] = []
    engines: list[TensorRTEngine] = []

    def make(
        *, seed: int | None = None, graphs: str = "", cuda_graphs: bool = True, **changes: Any
    ) -> tuple[TensorRTEngine, FakeTensorRT]:
        library = FakeTensorRT(FakeDevice(seed, graphs), **changes)
        devices.append(library.device)
        monkeypatch.setattr(tensorrt, "load_tensorrt", lambda _: library)
        monkeypatch.setattr(tensorrt, "open_device", lambda: library.device)
        artifact = write_engine(tmp_path)
        if "profiles" in changes:
            spec = artifact.spec
            inputs = (replace(spec.inputs[0], shape=("batch", 3, "height", "width")),)
            outputs = (replace(spec.outputs[0], shape=("batch", 1, "rows", "columns")),)
            replace(artifact, spec=replace(spec, inputs=inputs, outputs=outputs)).write()
        engine = TensorRTEngine(artifact.path, cuda_graphs=cuda_graphs)
        engines.append(engine)
        return engine, library

    yield make
    for engine in engines:
        engine.close()
    for device in devices:
        assert device.live == {}
