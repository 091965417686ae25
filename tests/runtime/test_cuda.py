"""Every binding keeps the device's contract, on a GPU made of NumPy; failures are one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from msfnet_runtime import MsfnetError
from msfnet_runtime.cuda.device import Device, open_device
from tests.runtime.fake_cuda import FakeDevice
from tests.runtime.fake_cuda_modules import install_cuda_python, install_pycuda, remove


@pytest.fixture
def gpu() -> FakeDevice:
    """Return what lies below the bindings."""
    return FakeDevice()


def cuda_python(monkeypatch: pytest.MonkeyPatch, gpu: FakeDevice) -> Device:
    """Open the GPU through cuda-python's stand-in."""
    install_cuda_python(monkeypatch, gpu)
    return open_device()


def pycuda(monkeypatch: pytest.MonkeyPatch, gpu: FakeDevice) -> Device:
    """Open the GPU through PyCUDA's stand-in, with cuda-python's for graphs."""
    install_cuda_python(monkeypatch, gpu)
    install_pycuda(monkeypatch, gpu)
    monkeypatch.setenv("MSFNET_CUDA", "pycuda")
    return open_device()


def fake(monkeypatch: pytest.MonkeyPatch, gpu: FakeDevice) -> Device:
    """Return the fake itself: what stands in for a device keeps a device's contract."""
    return gpu


Opener = Callable[[pytest.MonkeyPatch, FakeDevice], Device]


@pytest.fixture(params=[cuda_python, pycuda, fake])
def device(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, gpu: FakeDevice
) -> Iterator[Device]:
    """Return a device of each kind; whatever a test leaves, closing gives back."""
    opener: Opener = request.param
    opened = opener(monkeypatch, gpu)
    yield opened
    opened.close()
    assert gpu.live == {}


def test_bytes_travel_there_and_back(device: Device, rng: np.random.Generator) -> None:
    """Of both types that models take; the host sees them once it has waited."""
    stream = device.stream()
    for data in (
        rng.normal(size=(2, 3, 5)).astype(np.float32),
        rng.integers(0, 256, (4, 7, 3), np.uint8),
    ):
        source = device.pinned(data.shape, data.dtype.name)
        target = device.pinned(data.shape, data.dtype.name)
        address = device.allocate(data.nbytes)
        source[...] = data
        device.copy_in(address, source, stream)
        device.copy_out(target, address, stream)
        assert not np.array_equal(target, data)

        device.synchronize(stream)

        np.testing.assert_array_equal(target, data)


def test_streams_are_ordered_by_events_alone(device: Device, rng: np.random.Generator) -> None:
    """A stream that waits sees the other's copy; one that does not sees what was there before."""
    data = rng.normal(size=(64,)).astype(np.float32)
    first, second = device.stream(), device.stream()
    source, target = device.pinned((64,), "float32"), device.pinned((64,), "float32")
    source[:] = data
    address, event = device.allocate(data.nbytes), device.event()
    device.copy_in(address, source, first)
    device.record(event, first)

    device.copy_out(target, address, second)
    device.synchronize(second)
    assert not np.array_equal(target, data)

    device.wait(second, event)
    device.copy_out(target, address, second)
    device.synchronize(second)
    np.testing.assert_array_equal(target, data)


def test_events_measure_what_lies_between(device: Device) -> None:
    """Twice the bytes, twice the time; an event can be waited for alone."""
    stream = device.stream()
    start, middle, end = device.event(), device.event(), device.event()
    small, large = device.pinned((1000,), "uint8"), device.pinned((2000,), "uint8")
    small[:], large[:] = 3, 5
    address = device.allocate(2000)
    device.record(start, stream)
    device.copy_in(address, small, stream)
    device.record(middle, stream)
    device.copy_in(address, large, stream)
    device.record(end, stream)

    device.synchronize_event(end)

    assert device.elapsed_ms(start, middle) > 0
    assert device.elapsed_ms(middle, end) == pytest.approx(2 * device.elapsed_ms(start, middle))


def test_a_graph_replays_its_work_on_what_memory_then_holds(
    device: Device, rng: np.random.Generator
) -> None:
    """Nothing runs while it is captured; each launch reads the memory anew."""
    stream = device.stream()
    source, target = device.pinned((8,), "float32"), device.pinned((8,), "float32")
    address = device.allocate(source.nbytes)
    target[:] = -1.0
    device.begin_capture(stream)
    device.copy_in(address, source, stream)
    device.copy_out(target, address, stream)
    graph = device.end_capture(stream)
    device.synchronize(stream)
    np.testing.assert_array_equal(target, np.full(8, -1.0, np.float32))
    assert device.graph_nodes(graph) == 2
    instance = device.instantiate(graph)
    device.free(graph)

    for _ in range(3):
        data = rng.normal(size=8).astype(np.float32)
        source[:] = data
        device.launch(instance, stream)
        device.synchronize(stream)
        np.testing.assert_array_equal(target, data)


def test_each_thing_is_freed_once(device: Device, gpu: FakeDevice) -> None:
    """And at once; a second time is one line."""
    free, _ = device.memory()
    address = device.allocate(512)
    event, stream = device.event(), device.stream()
    assert device.memory()[0] == free - 512
    for handle in (address, event, stream):
        device.free(handle)
        with pytest.raises(MsfnetError, match=r"once|freed before"):
            device.free(handle)

    assert device.memory()[0] == free
    assert gpu.live == {}


def test_the_architecture_is_written_as_manifests_do(device: Device) -> None:
    """Major and minor in a row."""
    assert device.architecture == "sm86"
    assert device.graph_obstacle == ""


def test_a_failed_call_is_one_line_and_closing_gives_all_back(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeDevice
) -> None:
    """Whichever call it is that fails."""
    runtime = install_cuda_python(monkeypatch, gpu)
    device = open_device()
    calls: dict[str, Callable[[], object]] = {
        "cudaMalloc": lambda: device.allocate(9),
        "cudaMallocHost": lambda: device.pinned((3,), "float32"),
        "cudaStreamCreateWithFlags": device.stream,
        "cudaEventCreateWithFlags": device.event,
        "cudaMemGetInfo": device.memory,
    }
    for call in calls.values():
        call()
    for name, call in calls.items():
        runtime.fails = {name: 0}
        with pytest.raises(MsfnetError, match=f"^{name}: invalid argument; run `msfnet doctor`$"):
            call()
    assert len(gpu.live) == 4

    runtime.fails = {"cudaFree": 0}
    with pytest.raises(MsfnetError, match=r"^cudaFree"):
        device.close()

    assert [type(thing) for thing in gpu.live.values()] == [np.ndarray]


def test_cuda_python_selects_its_device_before_every_call(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeDevice
) -> None:
    """A thread starts on device 0, and other libraries move it."""
    runtime = install_cuda_python(monkeypatch, gpu)
    with_stream = open_device(1)
    with_stream.synchronize(with_stream.stream())

    assert set(runtime.calls[::2]) == {"cudaSetDevice"}
    assert "cudaSetDevice" not in runtime.calls[1::2]
    assert with_stream.dlpack == (2, 1)


def test_pycuda_leaves_no_context_behind(monkeypatch: pytest.MonkeyPatch, gpu: FakeDevice) -> None:
    """Pushed around each call, popped after errors too, given back once."""
    driver = install_pycuda(monkeypatch, gpu)
    monkeypatch.setenv("MSFNET_CUDA", "pycuda")
    device = open_device()
    device.allocate(5)
    driver.fail = True
    with pytest.raises(MsfnetError, match=r"^PyCUDA: out of memory; run `msfnet doctor`$"):
        device.allocate(7)
    driver.fail = False
    assert (driver.depth, driver.attached) == (0, 1)

    device.close()
    device.close()

    assert (driver.depth, driver.attached, gpu.live) == (0, 0, {})
    with pytest.raises(MsfnetError, match="closed"):
        device.allocate(5)


def test_pycuda_alone_says_that_it_captures_no_graphs(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeDevice
) -> None:
    """With the command that helps."""
    remove(monkeypatch, "cuda", "cuda.bindings")
    install_pycuda(monkeypatch, gpu)
    device = open_device()

    assert "pip install cuda-python" in device.graph_obstacle
    with pytest.raises(MsfnetError, match="captures no CUDA graphs"):
        device.begin_capture(device.stream())
    with pytest.raises(MsfnetError, match="MSFNET_CUDA=cuda-python"):
        device.synchronize(12345)


@pytest.mark.parametrize(("wanted", "named"), [("", "cuda-python"), ("pycuda", "pycuda")])
def test_a_missing_binding_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch, wanted: str, named: str
) -> None:
    """PyCUDA only where it was asked for."""
    remove(monkeypatch, "cuda", "cuda.bindings", "pycuda")
    monkeypatch.setenv("MSFNET_CUDA", wanted)

    with pytest.raises(MsfnetError, match=f"^{named} is not installed; run `pip install {named}`"):
        open_device()


def test_an_unknown_binding_lists_the_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typo is no silent default."""
    monkeypatch.setenv("MSFNET_CUDA", "cupy")

    with pytest.raises(MsfnetError, match="set it to cuda-python or pycuda"):
        open_device()


def test_no_gpu_is_one_line_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeDevice
) -> None:
    """Through either binding."""
    install_cuda_python(monkeypatch, gpu).fails = {"cudaSetDevice": 0}
    install_pycuda(monkeypatch, gpu).fail = True
    for wanted in ("cuda-python", "pycuda"):
        monkeypatch.setenv("MSFNET_CUDA", wanted)
        with pytest.raises(MsfnetError, match=r"no NVIDIA GPU.*run the \.onnx file instead") as it:
            open_device()
        assert "\n" not in str(it.value)


def test_the_fake_device_catches_what_a_gpu_would_not_forgive(gpu: FakeDevice) -> None:
    """Use after free, memory freed while in use, work left behind, a capture left open."""
    stream, address = gpu.stream(), gpu.allocate(16)
    host = gpu.pinned((16,), "uint8")
    gpu.copy_in(address, host, stream)
    with pytest.raises(MsfnetError, match="freed while in use"):
        gpu.free(address)
    gpu.synchronize(stream)
    gpu.free(address)
    with pytest.raises(MsfnetError, match="illegal address"):
        gpu.copy_in(address, host, stream)
    gpu.begin_capture(stream)
    with pytest.raises(MsfnetError, match="capturing"):
        gpu.synchronize(stream)
    with pytest.raises(MsfnetError, match="left open"):
        gpu.close()
