"""Tests the server of the live page: newest frames, exact depth, access control, slow viewers."""

from __future__ import annotations

import base64
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import cv2
import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from msfnet_runtime import CameraIntrinsics, MsfnetError
from msfnet_runtime.pipeline import run_pipeline
from msfnet_runtime.sink import Sink
from msfnet_runtime.sinks.options import SinkOptions
from msfnet_runtime.web import WebSink
from msfnet_runtime.web.message import encode_frame
from msfnet_runtime.web.server import listen
from msfnet_runtime.web.sink import parse_address
from tests.runtime.live_page import TOKEN, decode, next_frame, pair, viewer, wait_until
from tests.runtime.streams import Frames, estimator, psnr
from tests.runtime.test_stream_stats import STATS
from tests.specs import deploy_spec

INDOORS = deploy_spec(depth_range_m=(0.4, 10.0))
OUTDOORS = deploy_spec(depth_range_m=(0.5, 80.0))


@pytest.fixture
def sink() -> Iterator[WebSink]:
    """Serve a page on a free port."""
    with WebSink(INDOORS, port=0) as page:
        yield page


def test_a_message_contains_the_exact_depth(sink: WebSink) -> None:
    """Indoors a count is a millimetre; 0 is invalid; the picture is that of the frame."""
    frame, depth = pair(7)
    sink.write(frame, depth)

    with viewer(sink) as socket:
        header, image, counts = next_frame(socket)

    expected = np.where(depth.valid, np.rint(depth.values.astype(np.float64) * 1000), 0)
    np.testing.assert_array_equal(counts, expected)
    assert (header["counts_per_metre"], header["step"], header["index"]) == (1000, 1, 7)
    assert psnr(image, frame.image) > 30


def test_far_depth_has_fewer_counts_per_metre() -> None:
    """80 m do not fit in 16 bits of millimetres: a metre is 256 counts, 65535 is too far."""
    frame, depth = pair(0, low=0.5, high=300.0)
    with WebSink(OUTDOORS, port=0) as sink, viewer(sink) as socket:
        sink.write(frame, depth)
        header, _, counts = next_frame(socket)

    exact = np.rint(depth.values.astype(np.float64) * 256)
    np.testing.assert_array_equal(counts, np.where(depth.valid, np.minimum(exact, 65535), 0))
    assert counts.max() == 65535
    assert header["counts_per_metre"] == 256


def test_a_wide_frame_is_subsampled_without_averaging() -> None:
    """Every third row and column is sent; the camera is scaled, so 3-D points do not move."""
    camera = CameraIntrinsics(90.0, 95.0, 100.2, 40.7, 203, 85)
    frame, depth = pair(2, (85, 203), intrinsics=camera)
    with WebSink(INDOORS, port=0, max_width=70) as sink, viewer(sink) as socket:
        sink.write(frame, depth)
        header, image, counts = next_frame(socket)

    kept = np.where(depth.valid, np.rint(depth.values.astype(np.float64) * 1000), 0)[::3, ::3]
    np.testing.assert_array_equal(counts, kept)
    assert image.shape == (29, 68, 3)
    column, row = 31, 17
    ray = ((column - header["cx"]) / header["fx"], (row - header["cy"]) / header["fy"])
    assert ray == pytest.approx(((3 * column - 100.2) / 90.0, (3 * row - 40.7) / 95.0))
    assert header["assumed_fov_deg"] is None


def test_an_unknown_camera_is_assumed_and_marked(sink: WebSink) -> None:
    """It is 60 degrees wide, and its axis goes through the centre."""
    sink.write(*pair(1))
    with viewer(sink) as socket:
        header = next_frame(socket).header

    assert header["assumed_fov_deg"] == 60
    edges = [(column - header["cx"]) / header["fx"] for column in (-0.5, 79.5)]
    assert np.degrees(np.arctan(edges)) == pytest.approx([-30, 30])
    assert (header["cy"], header["fy"]) == (pytest.approx(23.5), pytest.approx(header["fx"]))


def test_a_camera_from_the_user_is_used() -> None:
    """It has a field of view or a matrix, and applies if the source has no camera."""
    own = CameraIntrinsics(90.0, 95.0, 40.2, 20.7, 80, 48)
    matrix = SinkOptions(lens=(70.0, 71.0, 39.0, 22.0))
    for options, intrinsics, expected in (
        (SinkOptions(lens=90.0), None, (40.0, 40.0, 39.5, 23.5)),
        (matrix, None, (70.0, 71.0, 39.0, 22.0)),
        (matrix, own, (90.0, 95.0, 40.2, 20.7)),
    ):
        with WebSink(INDOORS, port=0, options=options) as sink, viewer(sink) as socket:
            sink.write(*pair(0, intrinsics=intrinsics))
            header = next_frame(socket).header
        assert [header[name] for name in ("fx", "fy", "cx", "cy")] == pytest.approx(expected)
        assert header["assumed_fov_deg"] is None


def test_viewers_are_notified_of_the_end_of_the_stream() -> None:
    """They get the last frame and statistics first, also while they draw."""
    before = time.monotonic()
    with WebSink(INDOORS, port=0) as sink:
        drawing, paused = viewer(sink), viewer(sink)
        sink.write(*pair(0))
        assert next_frame(drawing).header["index"] == 0
        paused.recv(timeout=10)
        sink.write(*pair(1))
        sink.observe(replace(STATS, frames=2))
    took = time.monotonic() - before

    messages = list(drawing)
    (stats,) = (message for message in messages if isinstance(message, str))
    (last,) = (message for message in messages if isinstance(message, bytes))
    assert json.loads(stats)["snapshots"][-1]["frames"] == 2
    assert decode(last).header["index"] == 1
    for each in (drawing, paused):
        with pytest.raises(ConnectionClosed, match="the stream has ended") as closed:
            while True:
                each.recv(timeout=10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1000
    assert took < 5


def test_statistics_that_come_while_the_last_frame_is_encoded_are_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The stream ends meanwhile: a page would show fewer frames than there were."""
    encoding, go_on = threading.Event(), threading.Event()

    def slowly(*arguments: Any) -> bytes:
        encoding.set()
        go_on.wait(10)
        return encode_frame(*arguments)

    monkeypatch.setattr("msfnet_runtime.web.feed.encode_frame", slowly)
    with WebSink(INDOORS, port=0) as sink:
        socket = viewer(sink)
        sink.observe(replace(STATS, frames=167))
        sink.write(*pair(169))
        socket.send("next")
        assert encoding.wait(10)
        sink.observe(replace(STATS, frames=170))
        threading.Timer(0.2, go_on.set).start()
    messages = list(socket)
    last = [json.loads(message) for message in messages if isinstance(message, str)][-1]
    assert last["snapshots"][-1]["frames"] == 170
    assert [decode(each).header["index"] for each in messages if isinstance(each, bytes)] == [169]


def test_a_viewer_that_does_not_respond_does_not_delay_the_end() -> None:
    """One viewer never confirms its frame, another reads nothing."""
    with WebSink(INDOORS, port=0) as sink:
        sink.write(*pair(0))
        stalled, silent = stalled_viewer(sink), viewer(sink)
        next_frame(silent)
        sink.write(*pair(1))
        before = time.monotonic()
    assert time.monotonic() - before < 5
    stalled.close()
    silent.close()


def test_the_colours_are_opencvs_from_near_to_far(sink: WebSink) -> None:
    """The hello contains the model's range and 256 colours of every map."""
    with viewer(sink) as socket:
        hello = json.loads(socket.recv(timeout=10))

    assert hello["type"] == "hello"
    assert hello["range_m"] == [0.4, 10.0]
    ramp = np.arange(256, dtype=np.uint8)[None]
    for name, number in (("turbo", cv2.COLORMAP_TURBO), ("magma", cv2.COLORMAP_MAGMA)):
        table = np.frombuffer(base64.b64decode(hello["colours"][name]), np.uint8).reshape(256, 3)
        np.testing.assert_array_equal(table[::-1, ::-1], cv2.applyColorMap(ramp, number)[0])
    grey = np.frombuffer(base64.b64decode(hello["colours"]["grey"]), np.uint8).reshape(256, 3)
    np.testing.assert_array_equal(grey[::-1, 0], np.arange(256))


def test_a_viewer_gets_the_newest_frame_only_and_none_twice(sink: WebSink) -> None:
    """Of fifty frames between two requests it gets the last; then it waits for a new one."""
    with viewer(sink) as socket:
        sink.write(*pair(0))
        assert next_frame(socket).header["index"] == 0
        for index in range(1, 51):
            sink.write(*pair(index))
        assert next_frame(socket).header["index"] == 50
        socket.send("next")
        with pytest.raises(TimeoutError):
            socket.recv(timeout=0.3)
        sink.write(*pair(51))
        assert decode(np.asarray(socket.recv(timeout=10)).tobytes()).header["index"] == 51
        assert sink.feed.encoded == 3


def test_a_paused_viewer_gets_statistics_but_no_frame(sink: WebSink) -> None:
    """It gets frames again after a request."""
    with viewer(sink) as socket:
        socket.recv(timeout=10)
        socket.send("next")
        socket.send("pause")
        socket.send("pause")
        wait_until(lambda: sink.feed.viewers == 1)
        sink.observe(STATS)
        assert json.loads(socket.recv(timeout=10))["type"] == "stats"
        sink.write(*pair(0))
        sink.observe(STATS)
        assert json.loads(socket.recv(timeout=10))["type"] == "stats"
        assert next_frame(socket).header["index"] == 0


def test_a_new_viewer_gets_earlier_and_then_new_statistics(sink: WebSink) -> None:
    """The snapshots so far come at once, later ones one by one."""
    for frames in range(1, 4):
        sink.observe(replace(STATS, frames=frames))
    with viewer(sink) as socket:
        socket.recv(timeout=10)
        first = json.loads(socket.recv(timeout=10))["snapshots"]
        sink.observe(replace(STATS, frames=9))
        second = json.loads(socket.recv(timeout=10))["snapshots"]

    assert [snapshot["frames"] for snapshot in first] == [1, 2, 3]
    assert second == [json.loads(replace(STATS, frames=9).to_json())]


def test_several_viewers_share_one_encoding(sink: WebSink) -> None:
    """One frame for four viewers is encoded once; without viewers nothing is encoded."""
    for index in range(20):
        sink.write(*pair(index))
    assert sink.feed.encoded == 0

    viewers = [viewer(sink) for _ in range(4)]
    indices = [next_frame(each).header["index"] for each in viewers]
    for each in viewers:
        each.close()

    assert indices == [19] * 4
    assert sink.feed.encoded == 1
    wait_until(lambda: sink.feed.viewers == 0)


def test_a_viewer_that_stops_reading_delays_nobody_and_is_dropped() -> None:
    """Frames exceed the socket's buffers: it gets one, the other viewer all it requests."""
    noise = np.random.default_rng(3)
    frame, depth = pair(0, (900, 1200))
    image = noise.integers(0, 256, (900, 1200, 3), np.uint8)
    values = noise.uniform(0.5, 9, (900, 1200)).astype(np.float32)
    with WebSink(INDOORS, port=0, patience_s=2.0) as sink:
        stalled = stalled_viewer(sink)
        wait_until(lambda: sink.feed.viewers == 1)
        with viewer(sink) as socket:
            wait_until(lambda: sink.feed.viewers == 2)
            for index in range(6):
                for _ in range(100):
                    sink.write(
                        replace(frame, index=index, image=image), replace(depth, values=values)
                    )
                assert next_frame(socket).header["index"] == index
            socket.send("pause")
            wait_until(lambda: sink.feed.viewers == 1)
            sink.write(*pair(6))
            assert next_frame(socket).header["index"] == 6
        assert sink.feed.number == 601
        assert sink.feed.encoded <= 8
        stalled.close()


@pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system never discards unread data"
)
def test_data_that_a_dropped_viewer_never_reads_is_discarded() -> None:
    """Its connection ends, although it neither reads nor closes it."""
    noise = np.random.default_rng(3).uniform(0.5, 9, (2000, 1200)).astype(np.float32)
    frame, depth = pair(0, (2000, 1200))
    with WebSink(INDOORS, port=0, patience_s=0.5) as sink:
        sink.write(frame, replace(depth, values=noise))
        stalled = stalled_viewer(sink)

        def disconnected() -> bool:
            try:
                stalled.send(b"\x81\x85" + bytes(4) + b"pause")
            except OSError:
                return True
            return False

        wait_until(lambda: sink.feed.encoded == 1)
        wait_until(lambda: sink.feed.viewers == 0)
        wait_until(disconnected)
        stalled.close()


def stalled_viewer(sink: WebSink) -> socket.socket:
    """Open a viewer that requests a frame and does not read it."""
    port = urlsplit(sink.address).port or 0
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", port))
    raw.sendall(
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += raw.recv(1)
    raw.sendall(b"\x81\x84" + bytes(4) + b"next")
    return raw


def test_a_viewer_that_does_not_confirm_is_dropped() -> None:
    """It reads, but sends neither next nor pause; after pause it can be silent."""
    with WebSink(INDOORS, port=0, patience_s=1.0) as sink:
        sink.write(*pair(0))
        with viewer(sink) as silent, viewer(sink) as paused:
            next_frame(paused)
            paused.send("pause")
            next_frame(silent)
            with pytest.raises(ConnectionClosed, match="too slow"):
                silent.recv(timeout=10)
            sink.write(*pair(1))
            assert next_frame(paused).header["index"] == 1


def test_an_unknown_word_ends_the_connection(sink: WebSink) -> None:
    """The other viewers are not affected."""
    with viewer(sink) as rude, viewer(sink) as other:
        rude.recv(timeout=10)
        rude.send("everything")
        with pytest.raises(ConnectionClosed, match="next or pause"):
            rude.recv(timeout=10)
        sink.write(*pair(0))
        assert next_frame(other).header["index"] == 0


def test_the_page_loads_nothing_from_other_hosts(sink: WebSink) -> None:
    """All files come from this server, under a policy that allows nothing else."""
    page = httpx.get(sink.address)
    assert page.headers["content-security-policy"].startswith("default-src 'self';")
    assert page.headers["x-content-type-options"] == "nosniff"
    names = set(re.findall(r'(?:src|href)="([^"]+)"', page.text))
    assert names == {"page.js", "page.css", "icon.svg"}
    scripts = {name: httpx.get(sink.address + name) for name in names}
    imported = set(re.findall(r'from "\./([^"]+)"', scripts["page.js"].text))
    scripts |= {name: httpx.get(sink.address + name) for name in imported}
    assert len(imported) == 5
    for name, answer in scripts.items():
        assert answer.status_code == 200
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", answer.text), name
        assert name.endswith(".js") == ("javascript" in answer.headers["content-type"])


def test_a_token_is_required_everywhere() -> None:
    """Page, scripts and WebSocket need it; it is in the address once, then in a cookie."""
    with WebSink(INDOORS, port=0, token=TOKEN) as sink:
        base, query = sink.address.split("?")
        assert query == f"token={TOKEN}"
        for path in ("", "page.js", "nothing", f"?token={TOKEN[:-1]}", f"?token={TOKEN}x"):
            assert httpx.get(base + path).status_code == 401
        for wrong in ("", f"?token={TOKEN[1:]}"):
            with pytest.raises(InvalidStatus, match="403"):
                viewer(sink, query=wrong)

        answer = httpx.get(sink.address)
        cookie = answer.headers["set-cookie"]
        assert answer.status_code == 200
        assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
        headers = {"cookie": cookie.split(";", maxsplit=1)[0]}
        assert httpx.get(base + "page.js", headers=headers).status_code == 200
        viewer(sink, additional_headers=headers).close()
        viewer(sink, query=f"?{query}").close()


def test_another_site_cannot_open_a_websocket(sink: WebSink) -> None:
    """A page of this server can."""
    own = sink.address.rstrip("/")
    viewer(sink, origin=own).close()
    for foreign in (
        "http://evil.example",
        own.replace("127.0.0.1", "localhost"),
        own + "0",
        "null",
    ):
        with pytest.raises(InvalidStatus, match="403"):
            viewer(sink, origin=foreign)


def test_a_name_rebound_to_this_machine_is_refused(sink: WebSink) -> None:
    """Only the loopback's own names are accepted, with any port."""
    for host in ("127.0.0.1:9", "localhost:8000", "[::1]:80"):
        assert httpx.get(sink.address, headers={"host": host}).status_code == 200
    for host in ("evil.example", "192.168.1.2", "127.0.0.1.evil.example", "localhost.evil", "["):
        assert httpx.get(sink.address, headers={"host": host}).status_code in {400, 421}
    address = ("127.0.0.1", urlsplit(sink.address).port or 0)
    with pytest.raises(InvalidStatus, match="403"):
        connect("ws://evil.example/ws", sock=socket.create_connection(address))


def test_on_a_network_addresses_and_own_names_are_accepted() -> None:
    """They need the token; a rebound name is refused even with it."""
    with WebSink(INDOORS, "0.0.0.0", 0, TOKEN) as sink:
        for host, status in (
            ("192.168.1.2:8000", 200),
            (socket.gethostname(), 200),
            ("evil.example", 421),
        ):
            assert httpx.get(sink.address, headers={"host": host}).status_code == status


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "robot.local", ""])
def test_a_network_requires_a_token(host: str) -> None:
    """The message names the variable and the command that creates one."""
    with pytest.raises(MsfnetError, match=r"MSFNET_WEB_TOKEN .*secrets\.token_urlsafe"):
        WebSink(INDOORS, host, 0)


@pytest.mark.parametrize("token", ["", "short", "a token with blanks", "semicolon;semicolon"])
def test_a_token_cannot_be_guessed_or_break_a_cookie(token: str) -> None:
    """It has at least 16 safe characters."""
    with pytest.raises(MsfnetError, match="at least 16"):
        WebSink(INDOORS, "127.0.0.1", 0, token)


def test_a_port_in_use_is_refused_and_a_closed_page_frees_it(sink: WebSink) -> None:
    """The error comes before the first frame; afterwards the port can be used again."""
    port = urlsplit(sink.address).port or 0
    with (
        pytest.raises(MsfnetError, match=rf"127\.0\.0\.1:{port}: .*another address or port"),
        WebSink(INDOORS, port=port),
    ):
        pass
    with WebSink(INDOORS, port=0) as other:
        freed = urlsplit(other.address).port or 0
    with WebSink(INDOORS, port=freed) as again:
        assert httpx.get(again.address).status_code == 200


def test_closing_disconnects_viewers_and_leaves_no_thread() -> None:
    """It does so while frames are being sent, and after an error."""
    before = set(threading.enumerate())
    with pytest.raises(KeyError), WebSink(INDOORS, port=0) as sink:
        socket = viewer(sink)
        sink.write(*pair(0))
        next_frame(socket)
        raise KeyError
    with pytest.raises(ConnectionClosed):
        socket.recv(timeout=10)
    with pytest.raises(httpx.ConnectError):
        httpx.get(sink.address)
    socket.close()
    wait_until(lambda: set(threading.enumerate()) <= before)


def test_a_pipeline_shows_its_depth_and_its_statistics() -> None:
    """The page is a sink and an observer."""
    spec = deploy_spec()
    with WebSink(spec, port=0) as sink:
        assert isinstance(sink, Sink)
        run_pipeline(Frames(12), estimator(), [sink], observers=[sink.observe])
        with viewer(sink) as socket:
            socket.recv(timeout=10)
            stats = json.loads(socket.recv(timeout=10))["snapshots"][-1]
            header, _, counts = next_frame(socket)

    assert (stats["frames"], stats["engine"]) == (12, "fake")
    assert header["index"] == 11
    assert counts[0, 0] == (10 + 11) * header["counts_per_metre"]


def test_missing_libraries_are_named_with_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message contains the command that installs them."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MsfnetError, match=r"pip install 'msfnet\[web\]'"):
        WebSink(INDOORS)


def test_addresses_are_read_exactly() -> None:
    """An address is host and port; an IPv6 host is in brackets."""
    assert parse_address("0.0.0.0:80") == ("0.0.0.0", 80)
    assert parse_address("[::1]:8000") == ("::1", 8000)
    for text in ("8000", "host", ":1", "host:", "host:70000", "host:-1", "host:8 0"):
        with pytest.raises(MsfnetError, match="HOST:PORT"):
            parse_address(text)


@pytest.mark.parametrize("host", ["a..b", "x" * 70])
def test_a_text_that_is_not_a_host_name_is_refused(host: str) -> None:
    """Python reports it as an encoding error."""
    with pytest.raises(MsfnetError, match=f"{host}:8000: not a host name"):
        listen("the live page", host, 8000, 1.0)
