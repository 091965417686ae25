"""Tests the CUDA bindings on a simulated GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from msfnet_runtime import MsfnetError
from msfnet_runtime.cuda.base import Device
from msfnet_runtime.cuda.device import open_device
from tests.runtime.fake_cuda import FakeDevice
from tests.runtime.fake_cuda_modules import install_cuda_python, install_pycuda, remove


@pytest.fixture
def gpu() -> FakeDevice:
    """Return the simulated GPU below the bindings."""
    return FakeDevice()


def cuda_python(monkeypatch: pytest.MonkeyPatch, gpu: FakeDevice) -> Device:
    """Open the GPU through a stand-in of cuda-python."""
    install_cuda_python(monkeypatch, gpu)
    return open_device()


def pycuda(monkeypatch: pytest.MonkeyPatch, gpu: FakeDevice) -> Device:
    """Open the GPU through a stand-in of PyCUDA, with that of cuda-python for graphs."""
    install_cuda_python(monkeypatch, gpu)
    install_pycuda(monkeypatch, gpu)
    monkeypatch.setenv("MSFNET_CUDA", "pycuda")
    return open_device()


def fake(monkeypatch: pytest.MonkeyPatch, gpu: FakeDevice) -> Device:
    """Return the simulated GPU itself, which also implements a device."""
    return gpu


Opener = Callable[[pytest.MonkeyPatch, FakeDevice], Device]


@pytest.fixture(params=[cuda_python, pycuda, fake])
def device(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, gpu: FakeDevice
) -> Iterator[Device]:
    """Return a device of each kind; closing it must free all resources."""
    opener: Opener = request.param
    opened = opener(monkeypatch, gpu)
    yield opened
    opened.close()
    assert gpu.live == {}


def test_bytes_are_copied_to_the_device_and_back(device: Device, rng: np.random.Generator) -> None:
    """Both types of model inputs are copied; the host sees them after synchronising."""
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
    """A stream that waits sees the other's copy; one that does not sees the old data."""
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


def test_events_measure_the_time_between_them(device: Device) -> None:
    """Twice the bytes take twice the time; a single event can be waited for."""
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


def test_a_graph_replays_its_work_on_the_current_memory(
    device: Device, rng: np.random.Generator
) -> None:
    """Nothing runs during the capture; each launch reads the current memory."""
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


def test_each_resource_is_freed_once(device: Device, gpu: FakeDevice) -> None:
    """Memory is available at once; a second time is an error."""
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
    """It contains the major and the minor version."""
    assert device.architecture == "sm86"
    assert device.graph_obstacle == ""


def test_a_failed_call_is_named_and_closing_frees_the_rest(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeDevice
) -> None:
    """The message names the call that failed."""
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
    """A thread starts with device 0, and other libraries can change that."""
    runtime = install_cuda_python(monkeypatch, gpu)
    with_stream = open_device(1)
    with_stream.synchronize(with_stream.stream())

    assert set(runtime.calls[::2]) == {"cudaSetDevice"}
    assert "cudaSetDevice" not in runtime.calls[1::2]
    assert with_stream.dlpack == (2, 1)


def test_pycuda_leaves_no_context_behind(monkeypatch: pytest.MonkeyPatch, gpu: FakeDevice) -> None:
    """It is pushed for each call, popped also after errors, and released once."""
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


def test_pycuda_alone_cannot_capture_graphs(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeDevice
) -> None:
    """The message contains the command that helps."""
    remove(monkeypatch, "cuda", "cuda.bindings")
    install_pycuda(monkeypatch, gpu)
    device = open_device()

    assert "pip install cuda-python" in device.graph_obstacle
    with pytest.raises(MsfnetError, match="PyCUDA cannot capture"):
        device.begin_capture(device.stream())
    with pytest.raises(MsfnetError, match="MSFNET_CUDA=cuda-python"):
        device.synchronize(12345)


@pytest.mark.parametrize(("wanted", "named"), [("", "cuda-python"), ("pycuda", "PyCUDA")])
def test_a_missing_binding_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch, wanted: str, named: str
) -> None:
    """PyCUDA is named only if it was requested."""
    remove(monkeypatch, "cuda", "cuda.bindings", "pycuda")
    monkeypatch.setenv("MSFNET_CUDA", wanted)

    with pytest.raises(
        MsfnetError, match=f"^{named} is not installed; run `pip install .*{named.lower()}"
    ):
        open_device()


def test_an_unknown_binding_lists_the_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typo does not select the default."""
    monkeypatch.setenv("MSFNET_CUDA", "cupy")

    with pytest.raises(MsfnetError, match="set it to cuda-python or pycuda"):
        open_device()


def test_a_missing_gpu_is_reported(monkeypatch: pytest.MonkeyPatch, gpu: FakeDevice) -> None:
    """Both bindings report it."""
    install_cuda_python(monkeypatch, gpu).fails = {"cudaSetDevice": 0}
    install_pycuda(monkeypatch, gpu).fail = True
    for wanted in ("cuda-python", "pycuda"):
        monkeypatch.setenv("MSFNET_CUDA", wanted)
        with pytest.raises(MsfnetError, match=r"no NVIDIA GPU.*run the \.onnx file instead") as it:
            open_device()
        assert "\n" not in str(it.value)


def test_the_simulated_gpu_detects_misuse(gpu: FakeDevice) -> None:
    """It detects use after free, memory freed while in use, and a capture left open."""
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
