"""Opens a GPU with one of the two Python bindings of CUDA.

cuda-python is the default; ``MSFNET_CUDA=pycuda`` selects PyCUDA, which is also used if
cuda-python is not installed.
"""

from __future__ import annotations

import os

from msfnet_runtime.cuda.base import Device
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.libraries import is_installed, require


def open_device(index: int = 0) -> Device:
    """Open a GPU with an installed binding.

    Raises:
        MsfnetError: no binding is installed, it does not load, or there is no GPU or driver.
    """
    wanted = os.environ.get("MSFNET_CUDA", "")
    if wanted not in ("", "cuda-python", "pycuda"):
        raise MsfnetError(f"MSFNET_CUDA={wanted} is unknown; set it to cuda-python or pycuda")
    if wanted == "pycuda" or (not wanted and _only_pycuda()):
        require("pycuda")
        from msfnet_runtime.cuda.pycuda_binding import PyCudaDevice

        return PyCudaDevice(index)
    require("cuda.bindings")
    from msfnet_runtime.cuda.cuda_python_binding import CudaPythonDevice

    return CudaPythonDevice(index)


def _only_pycuda() -> bool:
    return is_installed("pycuda") and not is_installed("cuda.bindings")
