"""Shows frames and depth on a live page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from msfnet_runtime.sink import SinkBase
from msfnet_runtime.sinks.options import SinkOptions
from msfnet_runtime.spec import ModelSpec
from msfnet_runtime.stream_stats import StreamStats
from msfnet_runtime.types import DepthMap, Frame
from msfnet_runtime.web.feed import Feed
from msfnet_runtime.web.guard import check_token
from msfnet_runtime.web.message import hello_text
from msfnet_runtime.web.server import check_libraries, listen, make_app, serving

_FAREWELL_S, _LOOK_S = 1.0, 0.01
"""Time for the viewers to receive the end of the stream, and between two checks, seconds."""

_DEFAULTS = SinkOptions()


class WebSink(SinkBase):
    """Shows the newest frame, its depth and the stream's statistics to browsers.

    Writing only stores the frame; it is encoded on request, once for all viewers, so that no
    viewer slows the stream. Pass :meth:`observe` to the pipeline as an observer. The server runs
    while the context is open.

    Args:
        spec: the model's spec; its depth range sets the colours and the unit.
        host: the address to listen on; any but a loopback address needs a token.
        port: a TCP port; 0 selects a free one.
        token: access token for the viewers: at least 16 letters, digits or any of ``. _ ~ -``.
        options: the camera if the source does not know it; the page has its own colours.
        max_width: largest width of the depth that is sent, pixels; wider ones are subsampled by
            an integer step.
        patience_s: time-out for a viewer to read a message or to respond to a frame.

    Raises:
        MsfnetError: a library or the token is missing; on entering, the port is not available.
    """

    def __init__(
        self,
        spec: ModelSpec,
        host: str = "127.0.0.1",
        port: int = 8000,
        token: str | None = None,
        *,
        options: SinkOptions = _DEFAULTS,
        max_width: int = 1280,
        patience_s: float = 10.0,
    ) -> None:
        check_libraries()
        check_token(host, token)
        self._spec, self._host, self._port, self._token = spec, host, port, token
        self._options, self._patience_s = options, patience_s
        self._feed = Feed(spec, max_width)

    @property
    def feed(self) -> Feed:
        """The content for the viewers, and their number."""
        return self._feed

    @property
    def address(self) -> str:
        """The page's address with the token, as this machine can reach it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        named = f"[{host}]" if ":" in host else host
        return f"http://{named}:{self._port}/" + (f"?token={self._token}" if self._token else "")

    def write(self, frame: Frame, depth: DepthMap) -> None:
        """Store the newest frame for the viewers."""
        self._feed.put(self._options.with_camera(frame), depth)

    def observe(self, stats: StreamStats) -> None:
        """Store a snapshot; an observer of :func:`~msfnet_runtime.pipeline.run_pipeline`."""
        self._feed.observe(stats)

    @contextmanager
    def _opened(self) -> Iterator[None]:
        listening = listen(self._host, self._port, self._patience_s)
        self._port = listening.getsockname()[1]
        hello = hello_text(self._spec)
        app = make_app(self._feed, hello, self._host, self._port, self._token, self._patience_s)
        with serving(app, listening):
            try:
                yield
            finally:
                self._say_goodbye()

    def _say_goodbye(self) -> None:
        """Send the viewers the last frame and the end of the stream, for a limited time."""
        self._feed.end()
        due = time.monotonic() + min(_FAREWELL_S, self._patience_s)
        while self._feed.viewers and time.monotonic() < due:
            time.sleep(_LOOK_S)
