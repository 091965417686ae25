"""Tests batches in flight on a simulated GPU: order, overlap, backpressure, refusals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_runtime import MsfnetError
from tests.runtime.fake_tensorrt import DYNAMIC, Open, batches, depth_like


@pytest.mark.parametrize("seed", [None, *range(12)])
@pytest.mark.parametrize("in_flight", [1, 2, 3])
@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_a_stream_of_batches_keeps_order_however_the_gpu_schedules(
    opened: Open, rng: np.random.Generator, seed: int | None, in_flight: int, cuda_graphs: bool
) -> None:
    """CUDA streams that lag or run ahead at random reveal any missing wait; the input is reused."""
    engine, _ = opened(seed=seed, cuda_graphs=cuda_graphs)
    inputs = batches(rng, 7)
    reused = np.empty_like(inputs[0])

    def refill() -> Iterator[NDArray[np.float32]]:
        for batch in inputs:
            reused[...] = batch
            yield reused

    outputs = list(engine.infer_stream(refill(), in_flight=in_flight))

    assert len(outputs) == len(inputs)
    for output, batch in zip(outputs, inputs, strict=True):
        np.testing.assert_array_equal(output, depth_like(batch))


def test_copies_hide_behind_compute(opened: Open, rng: np.random.Generator) -> None:
    """In the simulation copying in takes 2.5 ms and compute 3 ms; overlapped, only 3 ms count."""
    spent = {}
    for in_flight in (1, 2):
        engine, library = opened(cuda_graphs=False)
        for _ in engine.infer_stream(batches(rng, 20), in_flight=in_flight):
            pass
        spent[in_flight] = library.device.now

    assert spent[1] == pytest.approx(20 * (2.4576 + 3 + 0.2048))
    assert spent[2] < 20 * 3 * 1.1


def test_no_batch_is_read_before_there_is_room(opened: Open, rng: np.random.Generator) -> None:
    """The reader is never further ahead than the length of the queue."""
    engine, _ = opened()
    read = []
    inputs = batches(rng, 6)

    def source() -> Iterator[NDArray[np.float32]]:
        for number, batch in enumerate(inputs):
            read.append(number)
            yield batch

    for returned, _ in enumerate(engine.infer_stream(source(), in_flight=2)):
        assert len(read) <= returned + 3


def test_a_queue_refuses_what_it_cannot_do(opened: Open, rng: np.random.Generator) -> None:
    """It is full, empty, in use or closed; an abandoned queue leaves the engine usable."""
    engine, _ = opened()
    batch, other = batches(rng, 2)
    with engine.queue(1) as queue:
        with pytest.raises(MsfnetError, match="in use"):
            engine.queue()
        with pytest.raises(MsfnetError, match="no batch is in flight"):
            queue.result()
        with pytest.raises(MsfnetError, match="not 1x3x32x65"):
            queue.submit(np.ones((1, 3, 32, 65), np.float32))
        queue.submit(batch)
        assert (queue.full, queue.waiting) == (True, 1)
        with pytest.raises(MsfnetError, match="full"):
            queue.submit(batch)
    with pytest.raises(MsfnetError, match="queue is closed"):
        queue.submit(batch)
    abandoned = engine.infer_stream([batch, other, batch])
    next(abandoned)
    abandoned.close()

    np.testing.assert_array_equal(engine.infer(other), depth_like(other))
    assert len(list(engine.infer_stream([batch]))) == 1


def test_a_stream_may_change_its_shape(opened: Open, rng: np.random.Generator) -> None:
    """Slots change their shape while others are in flight."""
    engine, _ = opened(seed=3, **DYNAMIC)
    inputs = [b for n in (8, 16, 32, 12) for b in batches(rng, 3, 1, 3, n, n)]

    for output, batch in zip(engine.infer_stream(inputs), inputs, strict=True):
        np.testing.assert_array_equal(output, depth_like(batch))
