"""Exchanges arrays in GPU memory with PyTorch, CuPy, PyCUDA and others, without a copy."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from msfnet_runtime.closing import Closing
from msfnet_runtime.errors import MsfnetError

_DLPACK_KINDS = {"i": 0, "u": 1, "f": 2}
"""DLPack's type code of each kind of NumPy's."""


class DeviceArray(Closing):
    """A contiguous array in device memory, with ``__cuda_array_interface__`` and DLPack.

    The memory is freed when the array is closed or deleted and all DLPack tensors of it are
    deleted. Users of ``__cuda_array_interface__`` must keep the array, as that protocol requires.

    Args:
        address: address of the first element.
        shape: shape in elements.
        dtype: NumPy's name of the element type.
        device: DLPack's kind and number of the device.
        release: called once, when the memory is no longer needed.
        stream: the stream whose work fills the array; None if it is filled.
    """

    def __init__(
        self,
        address: int,
        shape: tuple[int, ...],
        dtype: str,
        *,
        device: tuple[int, int],
        release: Callable[[], None],
        stream: int | None = None,
    ) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._address, self._device, self._release = address, device, release
        self._stream = stream
        self._open, self._lent = True, 0

    @property
    def address(self) -> int:
        """The address of the first element.

        Raises:
            MsfnetError: the array is closed.
        """
        if not self._open:
            raise MsfnetError("the device array is closed; keep it open while it is read")
        return self._address

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3 of Numba's protocol, which CuPy, PyTorch and PyCUDA also read."""
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "stream": self._stream,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return DLPack's kind and number of the device."""
        return self._device

    def __dlpack__(self, **options: Any) -> Any:
        """Return a DLPack capsule, which keeps the memory until its consumer deletes it.

        Raises:
            MsfnetError: the array is closed or is still being filled, or a copy is requested.
        """
        if self._stream is not None:
            raise MsfnetError("the array is still being filled; call infer_device without a stream")
        if options.get("copy") or options.get("dl_device") not in (None, self._device):
            raise MsfnetError("device arrays cannot be copied here; copy in the other library")
        capsule = _capsule(self.address, self.shape, self.dtype, self._device, self._returned)
        self._lent += 1
        return capsule

    def close(self) -> None:
        """Free the memory once no tensor uses it; closing twice is allowed."""
        if self._open:
            self._open = False
            self._free_if_unused()

    def __del__(self) -> None:
        if getattr(self, "_open", False):
            self.close()

    def _returned(self) -> None:
        self._lent -= 1
        self._free_if_unused()

    def _free_if_unused(self) -> None:
        if not self._open and not self._lent:
            self._release()


class ForeignArray(NamedTuple):
    """The location of a device array of another library."""

    address: int
    shape: tuple[int, ...]
    dtype: str
    """NumPy's name of the element type."""
    stream: int | None
    """The stream whose work fills it; None if it is filled or the stream is unknown."""
    unmarked: bool
    """Whether the stream is unknown: older protocols do not name it."""


def foreign_array(array: Any, device: tuple[int, int]) -> ForeignArray:
    """Read the location of a device array of another library.

    Args:
        array: has ``__cuda_array_interface__``; the caller keeps it alive.
        device: DLPack's kind and number of the device it must be on, checked if it names its own.

    Raises:
        MsfnetError: it is not a device array, is on another device or is not contiguous.
    """
    described = getattr(array, "__cuda_array_interface__", None)
    if described is None:
        raise MsfnetError(
            f"{type(array).__name__} is not an array in GPU memory; pass one with "
            "__cuda_array_interface__, or use infer for NumPy arrays"
        )
    place = getattr(array, "__dlpack_device__", lambda: device)()
    if tuple(int(part) for part in place) != device:
        raise MsfnetError(f"the array is on device {place[1]}, not {device[1]}; move it there")
    shape, dtype = tuple(described["shape"]), np.dtype(described["typestr"])
    strides = described.get("strides")
    if strides is not None and tuple(strides) != _strides(shape, dtype.itemsize):
        raise MsfnetError("the device array is not contiguous; make it contiguous first")
    unmarked = "stream" not in described and described.get("version", 0) < 3
    address, stream = int(described["data"][0]), described.get("stream")
    return ForeignArray(address, shape, dtype.name, stream, unmarked)


def join_unmarked(array: Any, stream: int) -> None:
    """Make a stream wait for an array whose own stream is unknown, by means of DLPack.

    Raises:
        MsfnetError: the array's library has no DLPack, or refuses.
    """
    try:
        array.__dlpack__(stream=stream)  # it waits; the capsule is not used
    except (AttributeError, BufferError, RuntimeError) as error:
        raise MsfnetError(
            f"{type(array).__name__} cannot be waited for ({error}); pass an array with version 3 "
            "of __cuda_array_interface__, or with DLPack"
        ) from None


def _strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Return the strides of a contiguous array, bytes."""
    return tuple(itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


class _Tensor(ctypes.Structure):
    """DLPack's DLManagedTensor, with the fields of DLTensor, DLDevice and DLDataType inline."""


_DELETER = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Tensor))
_Tensor._fields_ = [
    ("data", ctypes.c_void_p),
    ("device_type", ctypes.c_int32),
    ("device_id", ctypes.c_int32),
    ("ndim", ctypes.c_int32),
    ("code", ctypes.c_uint8),
    ("bits", ctypes.c_uint8),
    ("lanes", ctypes.c_uint16),
    ("shape", ctypes.POINTER(ctypes.c_int64)),
    ("strides", ctypes.POINTER(ctypes.c_int64)),
    ("byte_offset", ctypes.c_uint64),
    ("manager_ctx", ctypes.c_void_p),
    ("deleter", _DELETER),
]

_CAPSULE_DELETER = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
_NAMED_CAPSULE = (ctypes.c_void_p, ctypes.c_char_p)
_new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, *_NAMED_CAPSULE, _CAPSULE_DELETER)(
    ("PyCapsule_New", ctypes.pythonapi)
)
_capsule_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, *_NAMED_CAPSULE)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)
_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, *_NAMED_CAPSULE)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_lent: dict[int, tuple[Any, ...]] = {}
"""Keeps each exported tensor alive, with its release function, by address."""


def _capsule(
    address: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    device: tuple[int, int],
    release: Callable[[], None],
) -> Any:
    """Return a capsule of a DLPack tensor; its consumer's deletion calls ``release``."""
    tensor = _Tensor(
        data=address,
        device_type=device[0],
        device_id=device[1],
        ndim=len(shape),
        code=_DLPACK_KINDS[dtype.kind],
        bits=8 * dtype.itemsize,
        lanes=1,
        shape=(ctypes.c_int64 * len(shape))(*shape),
        deleter=_tensor_deleter,
    )
    _lent[ctypes.addressof(tensor)] = (tensor, release)
    return _new_capsule(ctypes.addressof(tensor), b"dltensor", _capsule_deleter)


def _release_tensor(tensor: Any) -> None:
    """Release a tensor that its consumer has deleted."""
    _, release = _lent.pop(ctypes.addressof(tensor.contents))
    release()


def _release_unused(capsule: int) -> None:
    """Release the tensor of an unused capsule; a used capsule has another name."""
    if not _capsule_is_valid(capsule, b"dltensor"):
        return
    _, release = _lent.pop(_capsule_pointer(capsule, b"dltensor"))
    release()


_tensor_deleter = _DELETER(_release_tensor)
_capsule_deleter = _CAPSULE_DELETER(_release_unused)
