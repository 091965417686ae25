"""Network streams, read by PyAV: rtsp, http, tcp, udp and what else FFmpeg knows."""

from __future__ import annotations

import re

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.sources.camera import LiveSource
from msfnet_runtime.sources.decoding import PyavCapture
from msfnet_runtime.sources.options import DEFAULTS, SourceOptions


class StreamSource(LiveSource):
    """A network stream by its address.

    Raises:
        MsfnetError: PyAV is absent, or the address does not answer in time, or holds no video.
    """

    def __init__(self, url: str, options: SourceOptions = DEFAULTS) -> None:
        name = without_password(url)

        def connect() -> PyavCapture:
            try:
                return PyavCapture(url, options.timeout_s)
            except ImportError:
                raise MsfnetError(
                    "reading network streams needs PyAV; pip install 'msfnet[video]'"
                ) from None
            except OSError:
                raise MsfnetError(
                    f"{name} cannot be opened; check the address, and that the camera or server "
                    "is on and reachable from here"
                ) from None

        super().__init__(connect, name, reconnect=options.reconnect)


def without_password(url: str) -> str:
    """Return an address fit to be shown: ``rtsp://user:secret@host`` loses ``user:secret``."""
    return re.sub(r"(?<=://)[^/@]*@", "", url)
