"""Tests the CUDA bindings on a real GPU."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from msfnet_runtime import MsfnetError
from msfnet_runtime.cuda.base import Device
from msfnet_runtime.cuda.device import open_device

pytestmark = pytest.mark.gpu

MIB = 1 << 20


@pytest.fixture(params=["cuda-python", "pycuda"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    """Return the GPU through each binding that can open it."""
    monkeypatch.setenv("MSFNET_CUDA", request.param)
    try:
        opened = open_device()
    except MsfnetError as error:
        pytest.skip(str(error))
    yield opened
    opened.close()


def test_bytes_are_copied_to_the_device_and_back(device: Device, rng: np.random.Generator) -> None:
    """All eight MiB agree."""
    data = rng.integers(0, 256, 8 * MIB, np.uint8)
    source, target = device.pinned(data.shape, "uint8"), device.pinned(data.shape, "uint8")
    address, stream = device.allocate(data.nbytes), device.stream()
    source[:], target[:] = data, 255 - data

    device.copy_in(address, source, stream)
    device.copy_out(target, address, stream)
    device.synchronize(stream)

    np.testing.assert_array_equal(target, data)


def test_an_event_orders_two_streams(device: Device, rng: np.random.Generator) -> None:
    """One copies in, the other out, a hundred times with different data."""
    first, second, event = device.stream(), device.stream(), device.event()
    source, target = (device.pinned((16 * MIB,), "uint8") for _ in range(2))
    address = device.allocate(source.nbytes)
    for number in rng.integers(1, 255, 100):
        source[:] = number
        device.copy_in(address, source, first)
        device.record(event, first)
        device.wait(second, event)
        device.copy_out(target, address, second)
        device.synchronize(second)
        assert target.min() == target.max() == number


def test_events_agree_with_the_hosts_clock(device: Device) -> None:
    """A copy of 256 MiB takes equally long on both, apart from the cost of the call."""
    stream, start, end = device.stream(), device.event(), device.event()
    source = device.pinned((256 * MIB,), "uint8")
    source[:] = 7
    address = device.allocate(source.nbytes)
    for _ in range(2):  # the first warms up
        before = time.perf_counter()
        device.record(start, stream)
        device.copy_in(address, source, stream)
        device.record(end, stream)
        device.synchronize_event(end)
        host_ms = 1e3 * (time.perf_counter() - before)

    assert device.elapsed_ms(start, end) == pytest.approx(host_ms, rel=0.2, abs=0.5)


def test_copies_in_and_out_overlap(device: Device) -> None:
    """Both directions at once take much less than their sum."""
    streams = device.stream(), device.stream()
    hosts = [device.pinned((128 * MIB,), "uint8") for _ in streams]
    addresses = [device.allocate(128 * MIB) for _ in streams]
    hosts[0][:], hosts[1][:] = 3, 5

    def seconds(first: int, second: int) -> float:
        before = time.perf_counter()
        device.copy_in(addresses[0], hosts[0], first)
        device.copy_out(hosts[1], addresses[1], second)
        for stream in streams:
            device.synchronize(stream)
        return time.perf_counter() - before

    seconds(*streams)
    serial = min(seconds(streams[0], streams[0]) for _ in range(5))
    overlapped = min(seconds(*streams) for _ in range(5))

    assert overlapped < 0.8 * serial


def test_a_graph_replays_the_eager_copies(device: Device, rng: np.random.Generator) -> None:
    """It uses new data each time, ten times."""
    if device.graph_obstacle:
        pytest.skip(device.graph_obstacle)
    stream = device.stream()
    source, target = device.pinned((MIB,), "uint8"), device.pinned((MIB,), "uint8")
    address = device.allocate(MIB)
    device.begin_capture(stream)
    device.copy_in(address, source, stream)
    device.copy_out(target, address, stream)
    graph = device.end_capture(stream)
    assert device.graph_nodes(graph) == 2
    instance = device.instantiate(graph)
    device.free(graph)
    for _ in range(10):
        source[:] = rng.integers(0, 256, MIB, np.uint8)
        device.launch(instance, stream)
        device.synchronize(stream)
        np.testing.assert_array_equal(target, source)


def test_ten_thousand_rounds_leave_memory_as_it_was(device: Device) -> None:
    """Streams, events and memory are created and freed."""

    def round_trip() -> None:
        things = [device.stream(), device.event(), device.allocate(MIB)]
        host = device.pinned((1024,), "uint8")
        host[:] = 9
        device.copy_in(things[2], host, things[0])
        device.synchronize(things[0])
        device.free(host)
        for thing in things:
            device.free(thing)

    for _ in range(100):
        round_trip()
    before, _ = device.memory()
    for _ in range(10_000):
        round_trip()

    assert abs(device.memory()[0] - before) < 4 * MIB


def test_a_failed_allocation_is_reported(device: Device) -> None:
    """The device stays usable."""
    with pytest.raises(MsfnetError, match="run `msfnet doctor`"):
        device.allocate(1 << 50)

    assert device.allocate(MIB)


def test_pytorch_shares_the_primary_context(device: Device, rng: np.random.Generator) -> None:
    """It reads our memory in place, before and after it is freed."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    from msfnet_runtime.cuda.device_array import DeviceArray

    theirs = torch.arange(1.0, 9.0, device="cuda")
    data = rng.normal(size=(3, 5)).astype(np.float32)
    host, stream = device.pinned((3, 5), "float32"), device.stream()
    host[...] = data
    address = device.allocate(host.nbytes)
    device.copy_in(address, host, stream)
    device.synchronize(stream)
    with DeviceArray(
        address, (3, 5), "float32", device=device.dlpack, release=lambda: device.free(address)
    ) as array:
        for tensor in (torch.from_dlpack(array), torch.as_tensor(array, device="cuda")):
            assert tensor.data_ptr() == address
            np.testing.assert_array_equal(tensor.cpu().numpy(), data)
        del tensor
    device.close()

    assert float(theirs.sum()) == 36.0
