"""Tests TensorRT engines of both flavours on a real GPU, for which they are built here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from msfnet_runtime import MsfnetError
from msfnet_runtime.artifacts import Flavour
from msfnet_runtime.cuda.device import open_device
from msfnet_runtime.engines.tensorrt import TensorRTEngine
from tests.onnx_models import conv_model, conv_reference
from tests.specs import network_spec

pytestmark = pytest.mark.gpu


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TensorRTEngine]:
    """Return an engine of each flavour; skip those that do not run on this card."""
    from msfnet_export.build_engine import build_engine
    from msfnet_export.build_options import BuildOptions

    flavour = cast(Flavour, request.param)
    onnx.save(conv_model(network_spec()), tmp_path / "model.onnx")
    try:
        device = open_device()
        architecture = device.architecture
        device.close()
        build_engine(
            tmp_path / "model.onnx",
            tmp_path / "model.engine",
            flavour=flavour,
            options=BuildOptions(architectures=(architecture,) * (flavour == "tensorrt-rtx")),
        )
        opened = TensorRTEngine(tmp_path / "model.engine")
    except MsfnetError as error:
        pytest.skip(f"{flavour}: {error}")
    with opened:
        yield opened


def batches(rng: np.random.Generator, count: int) -> list[NDArray[np.float32]]:
    """Return batches that all differ."""
    return [rng.normal(size=(1, 3, 32, 64)).astype(np.float32) for _ in range(count)]


def test_eager_and_graph_outputs_match_numpy(
    engine: TensorRTEngine, tmp_path: Path, rng: np.random.Generator
) -> None:
    """They also agree with each other, on ten batches."""
    with TensorRTEngine(tmp_path / "model.engine", cuda_graphs=False) as eager:
        for batch in batches(rng, 10):
            output = engine.infer(batch)
            np.testing.assert_allclose(output, conv_reference(batch), rtol=2e-3, atol=2e-3)
            np.testing.assert_allclose(output, eager.infer(batch), rtol=1e-5, atol=1e-5)


def test_graphs_run_on_this_card(engine: TensorRTEngine, rng: np.random.Generator) -> None:
    """There is no fall-back."""
    engine.infer(batches(rng, 1)[0])

    assert engine.describe().endswith("(CUDA graphs)")


def test_a_queue_returns_outputs_in_order(engine: TensorRTEngine, rng: np.random.Generator) -> None:
    """Two hundred batches run, three in flight."""
    inputs = batches(rng, 200)

    for output, batch in zip(engine.infer_stream(inputs, in_flight=3), inputs, strict=True):
        np.testing.assert_allclose(output, conv_reference(batch), rtol=2e-3, atol=2e-3)


def test_stages_add_up(engine: TensorRTEngine, rng: np.random.Generator) -> None:
    """The host waits at least as long as the GPU's stages; without copies it is faster."""
    (batch,) = batches(rng, 1)
    for graph in (True, False):
        for _ in range(20):
            engine.timed(batch, cuda_graph=graph)
        whole = [engine.timed(batch, cuda_graph=graph) for _ in range(200)]
        alone = [engine.timed(batch, cuda_graph=graph, transfers=False) for _ in range(200)]

        assert all(min(t.h2d, t.compute, t.d2h, t.enqueue) > 0 for t in whole)
        assert all(t.total > 0.9 * t.latency for t in whole)
        assert np.median([t.total for t in alone]) < np.median([t.total for t in whole])


def test_a_graph_is_enqueued_faster_than_a_run(
    engine: TensorRTEngine, rng: np.random.Generator
) -> None:
    """Medians of 300 runs are compared."""
    (batch,) = batches(rng, 1)
    medians = {}
    for graph in (False, True):
        enqueues = [engine.timed(batch, cuda_graph=graph).enqueue for _ in range(300)]
        medians[graph] = float(np.median(enqueues))

    assert medians[True] < medians[False]


def test_ten_thousand_batches_leave_memory_as_it_was(
    engine: TensorRTEngine, rng: np.random.Generator
) -> None:
    """The batches run through the queue, as a stream's do."""
    (batch,) = batches(rng, 1)
    probe = open_device()
    for _ in engine.infer_stream(batch for _ in range(200)):
        pass
    before, _ = probe.memory()

    for _ in engine.infer_stream(batch for _ in range(10_000)):
        pass

    assert abs(probe.memory()[0] - before) < 8 << 20
    probe.close()


def test_pytorch_exchanges_arrays_without_a_copy(
    engine: TensorRTEngine, rng: np.random.Generator
) -> None:
    """They use PyTorch's own stream, whose work is ordered with the engine's."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    for batch in batches(rng, 20):
        inputs = torch.from_numpy(batch).cuda()
        doubled = (batch * 2).astype(np.float32)
        with engine.infer_device(inputs * 2.0) as output:  # torch's work is still under way
            tensor = torch.from_dlpack(output)
            assert tensor.data_ptr() == output.address
            np.testing.assert_allclose(
                tensor.cpu().numpy(), conv_reference(doubled), rtol=2e-3, atol=2e-3
            )
        del tensor
