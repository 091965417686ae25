"""A network camera that misbehaves: pictures that are damaged, connections that break off."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import chain, repeat

_HEAD = "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n"

_LOOK_S = 0.2
"""How often a camera that nobody watches looks whether it is still wanted, seconds."""


class FlakyCamera:
    """Motion JPEG over HTTP on a free port of the loopback address, one viewer at a time.

    Args:
        jpegs: its pictures, one after the other, again and again.
        fps: frames per second, by the clock.
        lives: frames of each connection before it is cut; the connection after them lasts.
        away_s: how long the camera refuses connections after it cut one.
        damaged_every: of how many pictures one lacks its head and its second half; 0: none.
    """

    def __init__(
        self,
        jpegs: Sequence[bytes],
        *,
        fps: float,
        lives: Sequence[int] = (),
        away_s: float = 0.2,
        damaged_every: int = 0,
    ) -> None:
        self._jpegs, self._period_s, self._away_s = jpegs, 1 / fps, away_s
        self._lives: Iterator[int | None] = chain(lives, repeat(None))
        self._damaged_every = damaged_every
        self._ended = threading.Event()
        self.sent = 0
        """Pictures sent so far, over all connections."""
        self.damaged = 0
        """Of these, the damaged ones."""

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve; yield the address."""
        server = self._listen(0)
        port = server.server_port
        thread = threading.Thread(target=self._serve, args=(server, port), name="flaky-camera")
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}/"
        finally:
            self._ended.set()
            thread.join()

    def _serve(self, server: HTTPServer, port: int) -> None:
        """Answer one connection after the other; be away after each."""
        while True:
            sent = self.sent
            while self.sent == sent and not self._ended.is_set():
                server.handle_request()
            server.server_close()
            if self._ended.wait(self._away_s):
                return
            server = self._listen(port)

    def _listen(self, port: int) -> HTTPServer:
        camera = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                try:
                    for part in camera.parts():
                        self.wfile.write(part)
                except OSError:
                    return  # the viewer went away

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        server = HTTPServer(("127.0.0.1", port), Answer)
        server.timeout = _LOOK_S
        return server

    def parts(self) -> Iterator[bytes]:
        """Yield one connection's parts, each when it is due."""
        left, due = next(self._lives), time.monotonic()
        while left != 0 and not self._ended.is_set():
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due + self._period_s, time.monotonic() - 1)
            yield self._part()
            left = None if left is None else left - 1

    def _part(self) -> bytes:
        self.sent += 1
        content = self._jpegs[self.sent % len(self._jpegs)]
        if self._damaged_every and self.sent % self._damaged_every == 0:
            self.damaged += 1
            content = content[2 : len(content) // 2]
        return _HEAD.format(len(content)).encode() + content + b"\r\n"
