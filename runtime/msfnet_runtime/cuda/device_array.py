"""Arrays in a GPU's memory, exchanged without a copy with PyTorch, CuPy, PyCUDA and others."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from msfnet_runtime.closing import Closing
from msfnet_runtime.errors import MsfnetError

_DLPACK_KINDS = {"i": 0, "u": 1, "f": 2}
"""DLPack's type codes of NumPy's kinds."""


class DeviceArray(Closing):
    """A contiguous array in device memory, as ``__cuda_array_interface__`` and as DLPack.

    The memory is given back when the array is closed or forgotten, and all that was taken
    through DLPack is forgotten. Whoever takes it through ``__cuda_array_interface__`` keeps the
    array, as that protocol asks.

    Args:
        address: of the first element.
        shape: in elements.
        dtype: NumPy's name of the element type.
        device: DLPack's kind and number of the device.
        release: called once, when the memory is needed no more.
        stream: the stream whose work fills the array; None when it is filled.
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
        """The first element's address.

        Raises:
            MsfnetError: the array is closed.
        """
        if not self._open:
            raise MsfnetError("the device array is closed; keep it open while it is read")
        return self._address

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3 of Numba's protocol, which CuPy, PyTorch and PyCUDA read too."""
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

    def __dlpack__(self, **wishes: Any) -> Any:
        """Return a DLPack capsule, which keeps the memory until its taker is done with it.

        Raises:
            MsfnetError: the array is closed, is still being filled, or a copy is asked for.
        """
        if self._stream is not None:
            raise MsfnetError("the array is still being filled; call infer_device without a stream")
        if wishes.get("copy") or wishes.get("dl_device") not in (None, self._device):
            raise MsfnetError("device arrays are handed over as they are; copy on the other side")
        capsule = _capsule(self.address, self.shape, self.dtype, self._device, self._given_back)
        self._lent += 1
        return capsule

    def close(self) -> None:
        """Give the memory back, as soon as nobody holds it; closing twice is allowed."""
        if self._open:
            self._open = False
            self._settle()

    def __del__(self) -> None:
        if getattr(self, "_open", False):
            self.close()

    def _given_back(self) -> None:
        self._lent -= 1
        self._settle()

    def _settle(self) -> None:
        if not self._open and not self._lent:
            self._release()


class ForeignArray(NamedTuple):
    """Where another library's device array lies."""

    address: int
    shape: tuple[int, ...]
    dtype: str
    """NumPy's name of the type."""
    stream: int | None
    """The stream whose work fills it; None if it is filled, or :attr:`unmarked`."""
    unmarked: bool
    """Whether it does not say which stream fills it, as arrays of older protocols do not."""


def foreign_array(array: Any, device: tuple[int, int]) -> ForeignArray:
    """Read where another library's device array lies.

    Args:
        array: anything with ``__cuda_array_interface__``; the caller keeps it alive.
        device: DLPack's kind and number of the device it must lie on, checked where it tells.

    Raises:
        MsfnetError: no device array, of another device, or not contiguous.
    """
    described = getattr(array, "__cuda_array_interface__", None)
    if described is None:
        raise MsfnetError(
            f"{type(array).__name__} is no array in GPU memory; give one that has "
            "__cuda_array_interface__, or use infer for NumPy arrays"
        )
    place = getattr(array, "__dlpack_device__", lambda: device)()
    if tuple(int(part) for part in place) != device:
        raise MsfnetError(f"the array lies on device {place[1]}, not {device[1]}; move it there")
    shape, dtype = tuple(described["shape"]), np.dtype(described["typestr"])
    strides = described.get("strides")
    if strides is not None and tuple(strides) != _strides(shape, dtype.itemsize):
        raise MsfnetError("the device array is not contiguous; make it so first")
    unmarked = "stream" not in described and described.get("version", 0) < 3
    address, stream = int(described["data"][0]), described.get("stream")
    return ForeignArray(address, shape, dtype.name, stream, unmarked)


def join_unmarked(array: Any, stream: int) -> None:
    """Let a stream wait for an array that does not say which stream fills it: DLPack does.

    Raises:
        MsfnetError: its library has no DLPack, or refuses.
    """
    try:
        array.__dlpack__(stream=stream)  # the wait is all that is wanted: nobody takes the capsule
    except (AttributeError, BufferError, RuntimeError) as error:
        raise MsfnetError(
            f"{type(array).__name__} cannot be waited for ({error}); give an array with version 3 "
            "of __cuda_array_interface__, or with DLPack"
        ) from None


def _strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Return the strides of a contiguous array, bytes."""
    sizes = [itemsize]
    for length in reversed(shape[1:]):
        sizes.append(sizes[-1] * length)
    return tuple(reversed(sizes[: len(shape)]))


class _Tensor(ctypes.Structure):
    """DLPack's DLManagedTensor, its DLTensor, DLDevice and DLDataType written out flat."""


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
_lent: dict[int, tuple[Any, ...]] = {}
"""What each tensor that was handed over needs to live, by its address."""


def _capsule(
    address: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    device: tuple[int, int],
    release: Callable[[], None],
) -> Any:
    """Return a capsule of a DLPack tensor; ``release`` is called when its taker is done."""
    tensor = _Tensor(
        data=address,
        device_type=device[0],
        device_id=device[1],
        ndim=len(shape),
        code=_DLPACK_KINDS[dtype.kind],
        bits=8 * dtype.itemsize,
        lanes=1,
        shape=(ctypes.c_int64 * len(shape))(*shape),
        deleter=_forget,
    )
    _lent[ctypes.addressof(tensor)] = (tensor, release)
    create = ctypes.pythonapi.PyCapsule_New
    create.restype = ctypes.py_object
    create.argtypes = [ctypes.c_void_p, ctypes.c_char_p, _CAPSULE_DELETER]
    return create(ctypes.addressof(tensor), b"dltensor", _never_taken)


def _let_go(tensor: Any) -> None:
    """Let a tensor go: its taker is done with it."""
    _, release = _lent.pop(ctypes.addressof(tensor.contents))
    release()


def _drop_untaken(capsule: int) -> None:
    """Let the tensor of a capsule go that nobody took; a taken one has another name."""
    valid = ctypes.pythonapi.PyCapsule_IsValid
    valid.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    if not valid(capsule, b"dltensor"):
        return
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype = ctypes.c_void_p
    pointer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    _, release = _lent.pop(pointer(capsule, b"dltensor"))
    release()


_forget = _DELETER(_let_go)
_never_taken = _CAPSULE_DELETER(_drop_untaken)
