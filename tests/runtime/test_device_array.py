"""Tests that an engine reads and returns arrays in GPU memory without a copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from msfnet_runtime import MsfnetError
from msfnet_runtime.cuda.device_array import DeviceArray
from tests.runtime.fake_cuda import FakeDevice
from tests.runtime.fake_tensorrt import Open, batches, depth_like


class Foreign:
    """An array of another library: on the simulated GPU, filled on a separate stream."""

    def __init__(self, device: FakeDevice, values: NDArray[Any]) -> None:
        self.host = device.pinned(values.shape, values.dtype.name)
        self.host[...] = values
        self.address, self.stream = device.allocate(values.nbytes), device.stream()
        device.copy_in(self.address, self.host, self.stream)
        self.__cuda_array_interface__ = {
            "shape": values.shape,
            "typestr": values.dtype.str,
            "data": (self.address, True),
            "strides": None,
            "stream": self.stream,
            "version": 3,
        }


def test_device_arrays_are_read_and_returned_without_a_copy(
    opened: Open, rng: np.random.Generator
) -> None:
    """The engine waits for the producer's stream; NumPy and PyTorch read the output in place."""
    engine, library = opened()
    batch, other = batches(rng, 2)
    with engine.infer_device(Foreign(library.device, batch)) as output:
        viewed, tensor = np.from_dlpack(output), torch.utils.dlpack.from_dlpack(output)
        assert viewed.ctypes.data == tensor.data_ptr() == output.address
        described = output.__cuda_array_interface__
    engine.infer_device(Foreign(library.device, other)).close()

    np.testing.assert_array_equal(viewed, depth_like(batch))
    np.testing.assert_array_equal(tensor.numpy(), depth_like(batch))
    assert described["version"] == 3
    assert (described["shape"], described["typestr"]) == ((1, 1, 16, 32), "<f4")
    with pytest.raises(MsfnetError, match="closed"):
        _ = output.address


class Older(Foreign):
    """Imitates PyTorch: version 2 names no stream, DLPack makes the consumer's stream wait."""

    def __init__(self, device: FakeDevice, values: NDArray[Any]) -> None:
        super().__init__(device, values)
        del self.__cuda_array_interface__["stream"]
        self.__cuda_array_interface__["version"] = 2
        self.device, self.event = device, device.event()

    def __dlpack__(self, stream: int) -> None:
        """Order the streams."""
        self.device.record(self.event, self.stream)
        self.device.wait(stream, self.event)


def test_an_array_without_a_stream_is_waited_for_with_dlpack(
    opened: Open, rng: np.random.Generator
) -> None:
    """Without DLPack it cannot be waited for, which is an error."""
    engine, library = opened()
    (batch,) = batches(rng, 1)

    with engine.infer_device(Older(library.device, batch)) as output:
        np.testing.assert_array_equal(np.from_dlpack(output), depth_like(batch))

    mute = Foreign(library.device, batch)
    library.device.synchronize(mute.stream)
    del mute.__cuda_array_interface__["stream"]
    mute.__cuda_array_interface__["version"] = 2
    with pytest.raises(MsfnetError, match="Foreign cannot be waited for"):
        engine.infer_device(mute)


def test_an_output_on_the_callers_stream_is_ready_when_that_is_done(
    opened: Open, rng: np.random.Generator
) -> None:
    """Until then it names its stream and DLPack refuses it; it can be an input again."""
    engine, library = opened()
    (batch,) = batches(rng, 1)
    device = library.device
    stream, runs = device.stream(), library.runs
    output = engine.infer_device(Foreign(device, batch), stream)
    assert library.runs == runs
    assert output.__cuda_array_interface__["stream"] == stream
    with pytest.raises(MsfnetError, match="still being filled"):
        np.from_dlpack(output)

    host = device.pinned((1, 1, 16, 32), "float32")
    device.copy_out(host, output.address, stream)
    device.synchronize(stream)

    np.testing.assert_array_equal(host, depth_like(batch))
    output.close()


def test_outputs_outlive_the_engine(opened: Open, rng: np.random.Generator) -> None:
    """The device is closed with the last of them."""
    engine, library = opened()
    (batch,) = batches(rng, 1)
    viewed = np.from_dlpack(engine.infer_device(Foreign(library.device, batch)))

    engine.close()

    np.testing.assert_array_equal(viewed, depth_like(batch))
    assert library.device.live
    del viewed
    assert not library.device.live


def test_arrays_that_do_not_fit_are_refused(opened: Open, rng: np.random.Generator) -> None:
    """These are NumPy arrays, and wrong shapes, strides or devices."""
    engine, library = opened()
    (batch,) = batches(rng, 1)
    narrow, strided = Foreign(library.device, batch[..., 1:]), Foreign(library.device, batch)
    with pytest.raises(MsfnetError, match="ndarray is not an array in GPU memory"):
        engine.infer_device(batch)
    with pytest.raises(MsfnetError, match="not 1x3x32x63"):
        engine.infer_device(narrow)
    strided.__cuda_array_interface__["strides"] = (24576, 8192, 4, 128)
    with pytest.raises(MsfnetError, match="not contiguous"):
        engine.infer_device(strided)
    elsewhere = DeviceArray(1, (1, 3, 32, 64), "float32", device=(2, 5), release=lambda: None)
    with pytest.raises(MsfnetError, match="on device 5, not 0"):
        engine.infer_device(elsewhere)
    for foreign in (narrow, strided):
        library.device.synchronize(foreign.stream)
