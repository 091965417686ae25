"""Tests that strangers cannot take a stream's connections, and that only own pages are answered."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from msfnet_runtime.metrics import StreamMetrics
from msfnet_runtime.web import WebSink, server
from msfnet_runtime.web.guard import Guard
from tests.rigs.brightness import write_brightness_model
from tests.rigs.stream_process import StreamProcess
from tests.runtime.live_page import TOKEN, viewer, wait_until
from tests.specs import deploy_spec

SPEC = deploy_spec(depth_range_m=(0.4, 10.0))

HALF_A_REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"

Served = WebSink | StreamMetrics


@pytest.fixture(params=["page", "metrics"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    """Serve the live page or metrics on a free port, for at most 8 connections."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setattr(server, "REQUEST_S", 1.0)
        patch.setattr("msfnet_runtime.web.sink.CONNECTIONS", 8)
        patch.setattr("msfnet_runtime.metrics.CONNECTIONS", 8)
        if request.param == "page":
            yield stack.enter_context(WebSink(SPEC, port=0))
        else:
            yield stack.enter_context(StreamMetrics(0))


def connected(served: Served, data: bytes = b"") -> socket.socket:
    """Open a connection, and send what a request begins with."""
    opened = socket.create_connection(("127.0.0.1", urlsplit(served.address).port or 0), 10)
    opened.sendall(data)
    return opened


def is_open(connection: socket.socket) -> bool:
    """Return whether the server has not closed a connection."""
    connection.setblocking(False)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False


def test_connections_of_one_address_are_limited_before_any_request(served: Served) -> None:
    """Half of all stay; they end without a request, and then the server answers again."""
    strangers = [connected(served) for _ in range(12)]
    wait_until(lambda: sum(map(is_open, strangers)) <= 4)
    assert sum(map(is_open, strangers)) == 4
    wait_until(lambda: not any(map(is_open, strangers)))
    assert httpx.get(served.address).status_code == 200
    for each in strangers:
        each.close()


def test_a_request_that_comes_byte_by_byte_is_ended(served: Served) -> None:
    """So is one whose body never comes, and one after an answer."""
    whole = HALF_A_REQUEST + b"\r\n"
    body = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n"
    slow = [connected(served, data) for data in (HALF_A_REQUEST, body, whole + HALF_A_REQUEST)]
    wait_until(lambda: is_open(slow[2]))
    begun = time.monotonic()
    while still := [each for each in slow if drips(each)]:
        assert time.monotonic() - begun < 5, f"{len(still)} are still open"
        time.sleep(0.05)


def drips(connection: socket.socket) -> bool:
    """Send one more byte of a request; return whether the connection takes it."""
    try:
        connection.send(b"x")
    except OSError:
        return False
    return True


def test_the_last_descriptors_are_left_to_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection with a descriptor in the last quarter is closed, however few there are."""
    used = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(server, "_descriptors", lambda: used + 4)
    with WebSink(SPEC, port=0) as sink:
        stranger = connected(sink)
        wait_until(lambda: not is_open(stranger))
        stranger.close()


def test_a_viewer_stays_although_it_sends_no_further_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The time-out is that of requests, not of WebSockets."""
    monkeypatch.setattr(server, "REQUEST_S", 0.3)
    with WebSink(SPEC, port=0) as sink, viewer(sink) as watching:
        time.sleep(1)
        watching.send("pause")
        assert sink.feed.viewers == 1


def test_a_recording_goes_on_when_strangers_take_all_connections(tmp_path: Path) -> None:
    """The process may have 96 descriptors; 300 connections to page and metrics wait for ever."""
    write_brightness_model(tmp_path / "model.onnx", (48, 80))
    with socket.create_server(("127.0.0.1", 0)) as free:
        metrics = free.getsockname()[1]
    options = ["--metrics", metrics, "--web-address", "127.0.0.1:0", "--out", tmp_path / "frames"]
    source = "synthetic:room?frames=100000&size=48x80"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (96, hard))
    try:
        process = StreamProcess([tmp_path / "model.onnx", source, "--max-fps", "20", *options])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with process, ExitStack() as strangers:
        page = urlsplit(process.page()).port or 0
        for port in (page, metrics) * 150:
            stranger = strangers.enter_context(socket.socket())
            stranger.setblocking(False)
            stranger.connect_ex(("127.0.0.1", port))
        before = len(list((tmp_path / "frames").iterdir()))
        wait_until(lambda: len(list((tmp_path / "frames").iterdir())) > before + 30, 20)
        assert process.messages == []
        assert max(sample.descriptors for sample in process.samples) <= 80


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "192.168.1.2",
        "127.0.0.1.evil.example",
        "127.0.0.1#@evil.example",
        "127.0.0.1\\@evil.example",
        "evil@127.0.0.1",
        "127.0.0.1/evil.example",
        "127.0.0.1,evil.example",
        "127.1",
        "[::1",
        "[evil]",
        "localhost.",
        "127.0.0.1:port",
    ],
)
def test_another_name_of_this_machine_is_refused(served: Served, host: str) -> None:
    """A page of another site whose name leads here reads neither page nor metrics."""
    assert httpx.get(served.address, headers={"host": host}).status_code in {400, 421}


def test_metrics_answer_whatever_a_client_accepts() -> None:
    """Headers that are not text, a WebSocket and another path are no fault."""
    with StreamMetrics(0) as metrics:
        odd = [(b"connection", b"Upgrade"), (b"upgrade", b"websocket"), (b"accept", b"\xff")]
        assert httpx.get(metrics.address, headers=odd).status_code == 200
        assert b"msfnet_frames_total" in httpx.get(metrics.address + "/?x=%ff").content


async def answered(
    guard: Guard, headers: list[tuple[str, str]], query: str = "", kind: str = "http"
) -> dict[str, Any]:
    """Return the first message to a request."""
    messages = []

    async def send(message: Any) -> None:
        messages.append(message)

    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": kind, "headers": encoded, "query_string": query.encode()}
    await guard(scope, _never, send)
    return dict(messages[0])


async def _never() -> Any:
    raise AssertionError


async def _page(scope: Any, receive: Any, send: Any) -> None:
    start = {"http": "http.response.start", "websocket": "websocket.accept"}[scope["type"]]
    await send({"type": start, "status": 200, "headers": []})


def run_once(answer: Any) -> dict[str, Any]:
    """Return the result of a coroutine that never waits."""
    with pytest.raises(StopIteration) as end:
        answer.send(None)
    return dict(end.value.value)


@pytest.mark.parametrize(
    "other",
    [
        'prefs={"a": 1}',
        "a=x y,z",
        "a[b]=1",
        "foo",
        "n=J\xc3\xbcrg",
        'q="',
        "msfnet_token_81=something-else",
        f"msfnet_token_80={TOKEN[:-1]}",
    ],
)
def test_cookies_of_other_servers_do_not_lock_a_viewer_out(other: str) -> None:
    """A browser sends all cookies of a host, whatever their port and form."""
    guard = Guard(_page, "127.0.0.1", 80, TOKEN)
    own = f"msfnet_token_80={TOKEN}"
    for cookie in (f"{other}; {own}", f"{own}; {other}"):
        headers = [("host", "127.0.0.1:80"), ("cookie", cookie)]
        assert run_once(answered(guard, headers))["status"] == 200
    alone = [("host", "127.0.0.1:80"), ("cookie", other)]
    assert run_once(answered(guard, alone))["status"] == 401


@pytest.mark.parametrize(
    ("query", "status"),
    [
        (f"token={TOKEN}", 200),
        (f"a=%ff&token={TOKEN}", 200),
        ("token=%00", 401),
        ("token=%ff%fe", 401),
        (f"token={TOKEN}%00", 401),
        (f"Token={TOKEN}", 401),
    ],
)
def test_a_token_in_the_address_is_compared_exactly(query: str, status: int) -> None:
    """Bytes that are not text are no token."""
    guard = Guard(_page, "127.0.0.1", 80, TOKEN)
    assert run_once(answered(guard, [("host", "localhost")], query))["status"] == status


@pytest.mark.parametrize(
    "origins",
    [
        *([each] for each in ("", "null", "http://[", "http://]", "http://[evil]/", "http://x:y")),
        ["http://127.0.0.1:80#@evil.example"],
        ["http://evil.example@127.0.0.1:80"],
        ["file://127.0.0.1:80"],
        ["http://127.0.0.1:80", "http://evil.example"],
    ],
)
def test_a_malformed_or_foreign_origin_is_refused(origins: list[str]) -> None:
    """It is refused as a page of another site is, without an error of the server."""
    guard = Guard(_page, "127.0.0.1", 80)
    host = ("host", "127.0.0.1:80")
    foreign = [("origin", origin) for origin in origins]
    answer = run_once(answered(guard, [host, *foreign], kind="websocket"))
    assert answer["type"] == "websocket.close"
    own = [host, ("origin", "http://127.0.0.1:80")]
    assert run_once(answered(guard, own, kind="websocket"))["type"] == "websocket.accept"


@pytest.mark.parametrize("hosts", [[], ["127.0.0.1", "evil.example"], ["evil.example", "[::1]"]])
def test_a_request_has_exactly_one_host(hosts: list[str]) -> None:
    """A second one, which servers read differently, is refused."""
    guard = Guard(_page, "127.0.0.1", 80)
    assert run_once(answered(guard, [("host", host) for host in hosts]))["status"] == 421
