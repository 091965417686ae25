"""Tests TensorRT engines on a simulated GPU: outputs, graphs, shapes, timings, refusals."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msfnet_runtime import MsfnetError, open_engine
from msfnet_runtime.cuda import device
from msfnet_runtime.engines import tensorrt
from tests.runtime.fake_cuda import FakeDevice
from tests.runtime.fake_cuda_modules import install_cuda_python, install_pycuda
from tests.runtime.fake_tensorrt import (
    DYNAMIC,
    DataType,
    FakeTensorRT,
    Open,
    TensorIOMode,
    batches,
    depth_like,
)


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_outputs_are_the_function_of_their_batches(
    opened: Open, rng: np.random.Generator, cuda_graphs: bool
) -> None:
    """This holds without graphs and with one, each replay of which reads the new batch."""
    engine, library = opened(cuda_graphs=cuda_graphs)

    for batch in batches(rng, 4):
        np.testing.assert_array_equal(engine.infer(batch), depth_like(batch))

    assert library.device.log.count("launch") == (5 if cuda_graphs else 0)
    assert ("no CUDA graphs: not requested" in engine.describe()) is not cuda_graphs


@pytest.mark.parametrize("fault", ["empty", "refused", "stale", "wrong", "not capturable"])
def test_a_graph_that_fails_its_check_is_not_used(
    opened: Open, rng: np.random.Generator, fault: str
) -> None:
    """There is one warning; every output is right, also the first."""
    engine, _library = opened(fault=fault)
    first, *others = batches(rng, 3)

    with pytest.warns(UserWarning, match="runs without CUDA graphs: "):
        output = engine.infer(first)
    np.testing.assert_array_equal(output, depth_like(first))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for batch in others:
            np.testing.assert_array_equal(engine.infer(batch), depth_like(batch))

    assert "no CUDA graphs: " in engine.describe()


def test_a_binding_without_graphs_causes_a_warning(opened: Open) -> None:
    """The warning contains the binding's reason."""
    with pytest.warns(UserWarning, match="PyCUDA cannot capture CUDA graphs"):
        engine, _ = opened(graphs="PyCUDA cannot capture CUDA graphs")

    assert "PyCUDA cannot capture" in engine.describe()


def test_shapes_within_a_profile_run_and_memory_grows_once(
    opened: Open, rng: np.random.Generator
) -> None:
    """Sizes grow, shrink, change the profile and return; each output is that of its batch."""
    engine, library = opened(**DYNAMIC)
    shapes = [(1, 3, 8, 8), (2, 3, 32, 32), (1, 3, 8, 8), (1, 3, 64, 96), (2, 3, 31, 9)]
    sizes = []
    for shape in shapes * 3:
        (batch,) = batches(rng, 1, *shape)
        np.testing.assert_array_equal(engine.infer(batch), depth_like(batch))
        sizes.append(library.device.memory()[0])

    assert sizes[0] > sizes[1] == sizes[2] > sizes[3]
    assert set(sizes[3:]) == {sizes[3]}


def test_a_shape_outside_the_profiles_is_refused(opened: Open, rng: np.random.Generator) -> None:
    """The engine stays usable."""
    engine, _ = opened(**DYNAMIC)
    (small, good) = batches(rng, 1, 1, 3, 8, 33) + batches(rng, 1, 1, 3, 9, 17)

    with pytest.raises(
        MsfnetError,
        match=r"1x3x8x33 is outside .* \(1x3x8x8 to 2x3x32x32, 1x3x64x64 to 1x3x64x96\)",
    ):
        engine.infer(small)

    np.testing.assert_array_equal(engine.infer(good), depth_like(good))


IMAGE, PREDICTION = FakeTensorRT.tensors
MISMATCHES: dict[str, tuple[tuple[Any, ...], str]] = {
    "name": ((("picture", *IMAGE[1:]), PREDICTION), "tensors are picture, prediction"),
    "type": (((*IMAGE[:2], DataType.HALF, IMAGE[3]), PREDICTION), "float16, its manifest says"),
    "shape": ((IMAGE, (*PREDICTION[:3], (1, 1, 16, 33))), "output 1x1x16x33 float32, its"),
    "direction": (((IMAGE[0], TensorIOMode.OUTPUT, *IMAGE[2:]), PREDICTION), "is an output"),
}


@pytest.mark.parametrize("mismatch", MISMATCHES)
def test_an_engine_that_differs_from_its_manifest_is_refused(opened: Open, mismatch: str) -> None:
    """The message names both sides."""
    tensors, words = MISMATCHES[mismatch]

    with pytest.raises(MsfnetError, match=f"{words}.*build it again") as caught:
        opened(tensors=tensors)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"loads": False}, "cannot be deserialised; rebuild it with `msfnet build"),
        ({"contexts_left": 0}, "not create an execution context.*memory"),
    ],
)
def test_refusals_of_tensorrt_are_reported(opened: Open, fault: dict[str, Any], words: str) -> None:
    """All resources are freed, which the fixture checks."""
    with pytest.raises(MsfnetError, match=words):
        opened(**fault)


def test_a_refused_run_is_an_error_and_the_engine_stays_usable(
    opened: Open, rng: np.random.Generator
) -> None:
    """Copies of the refused batch may still be in progress."""
    engine, library = opened(cuda_graphs=False)
    (batch,) = batches(rng, 1)
    library.refuses = True
    with pytest.raises(MsfnetError, match="TensorRT refused to run the batch"):
        engine.infer(batch)
    library.refuses = False

    np.testing.assert_array_equal(engine.infer(batch), depth_like(batch))


def test_stages_are_timed_with_and_without_graph_and_transfers(
    opened: Open, rng: np.random.Generator
) -> None:
    """The simulation copies 10 kB per millisecond and computes for 3 ms."""
    engine, library = opened()
    (batch,) = batches(rng, 1)
    for graph in (True, False, None):
        launches = library.device.log.count("launch")
        whole = engine.timed(batch, cuda_graph=graph)
        assert (whole.h2d, whole.compute, whole.d2h) == pytest.approx((2.4576, 3, 0.2048))
        assert whole.latency == pytest.approx(5.6624)
        assert 0 < whole.enqueue < whole.total
        alone = engine.timed(batch, cuda_graph=graph, transfers=False)
        assert (alone.h2d, alone.compute, alone.d2h) == pytest.approx((0, 3, 0))
        assert (library.device.log.count("launch") > launches) == (graph is not False)

    library.fault = "refused"
    engine.timed(batch, cuda_graph=False)
    with pytest.raises(MsfnetError, match="no CUDA graph can be timed"):
        engine.timed(batch, cuda_graph=True)


def test_a_closed_engine_refuses_every_method(opened: Open, rng: np.random.Generator) -> None:
    """All methods raise the same error."""
    engine, library = opened()
    (batch,) = batches(rng, 1)
    engine.close()
    ways: list[Callable[[], object]] = [
        lambda: engine.infer(batch),
        lambda: engine.timed(batch),
        engine.queue,
        lambda: list(engine.infer_stream([batch])),
        lambda: engine.infer_device(batch),
    ]
    for way in ways:
        with pytest.raises(MsfnetError, match="the engine is closed"):
            way()
    assert library.device.live == {}


def test_open_engine_opens_it(opened: Open, tmp_path: Path, rng: np.random.Generator) -> None:
    """Only the engine's file is named."""
    engine, library = opened()
    engine.close()
    library.device = FakeDevice()
    (batch,) = batches(rng, 1)
    with open_engine(tmp_path / "model.engine") as again:
        np.testing.assert_array_equal(again.infer(batch), depth_like(batch))
    assert library.runs > 0
    assert library.device.live == {}


@pytest.mark.parametrize("binding", ["cuda-python", "pycuda"])
def test_the_engine_runs_through_either_binding(
    opened: Open,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rng: np.random.Generator,
    binding: str,
) -> None:
    """CUDA graphs, a queue and timings work with the stand-ins of both bindings."""
    first, library = opened()
    first.close()
    library.device = FakeDevice(seed=5)
    install_cuda_python(monkeypatch, library.device)
    install_pycuda(monkeypatch, library.device)
    monkeypatch.setenv("MSFNET_CUDA", binding)
    monkeypatch.setattr(tensorrt, "open_device", device.open_device)
    inputs = batches(rng, 5)

    with tensorrt.TensorRTEngine(tmp_path / "model.engine") as engine:
        for output, batch in zip(engine.infer_stream(inputs), inputs, strict=True):
            np.testing.assert_array_equal(output, depth_like(batch))
        assert engine.timed(inputs[0]).compute == pytest.approx(3)
        assert "CUDA graphs)" in engine.describe()
    assert library.device.live == {}


def test_layers_are_timed_by_tensorrts_profiler(opened: Open, rng: np.random.Generator) -> None:
    """A separate context is used: outputs before and after are those of the graph."""
    engine, library = opened()
    (batch,) = batches(rng, 1)
    engine.infer(batch)

    assert engine.layer_times(batch) == [("encoder.stem", 0.75), ("decoder.head", 2.25)]
    np.testing.assert_array_equal(engine.infer(batch), depth_like(batch))
    assert library.device.log.count("launch") == 3  # check, first and last output


def test_a_profiler_without_reports_is_an_error(opened: Open, rng: np.random.Generator) -> None:
    """All its resources are freed when the engine closes."""
    engine, _library = opened(fault="silent")
    with pytest.raises(MsfnetError, match="no layer times"):
        engine.layer_times(batches(rng, 1)[0])
