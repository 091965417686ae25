"""Tests the live page in a real browser: display, controls, readout, pause and reconnection."""

from __future__ import annotations

import base64
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, Locator, Page, Request, Route, expect, sync_playwright

from msfnet_runtime import DepthMap
from msfnet_runtime.colour import colour_depth
from msfnet_runtime.web import WebSink
from tests.rigs.brightness import write_brightness_model
from tests.rigs.stream_process import StreamProcess
from tests.runtime.live_page import TOKEN, pair
from tests.runtime.test_stream_stats import STATS
from tests.specs import deploy_spec

SPEC = deploy_spec(depth_range_m=(0.4, 10.0))

Pixels = NDArray[np.uint8]


class Served(Protocol):
    """A page that a browser can open."""

    @property
    def address(self) -> str:
        """The address of the page."""


class Elsewhere(NamedTuple):
    """A page of another process."""

    address: str


class Shown(NamedTuple):
    """A page in the browser and its sink."""

    sink: WebSink
    page: Page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start the system's Chromium with software rendering."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no chromium on the path; install it to test the live page")
    flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[[Served], Page]]:
    """Return a function that opens a page without network access; its errors fail the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 1000})
    complaints: list[str] = []

    def opened(sink: Served) -> Page:
        netloc = urlsplit(sink.address).netloc

        def reach_server_only(route: Route, request: Request) -> None:
            url = request.url
            if urlsplit(url).netloc == netloc:
                route.continue_()
            else:
                complaints.append(f"asked for {url}")
                route.abort()

        page = context.new_page()
        context.route("**/*", reach_server_only)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda message: complaints.append(f"{message.text} ({message.location['url']})"),
        )
        page.goto(sink.address)
        expect(page.locator("#state")).to_have_text("Live")
        return page

    yield opened
    context.close()
    expected = "WebSocket connection to"
    assert [text for text in complaints if expected not in text] == []


@pytest.fixture
def shown(new_page: Callable[[Served], Page]) -> Iterator[Shown]:
    """Show frame 0 and wait for it."""
    with WebSink(SPEC, port=0) as sink:
        sink.write(*pair(0))
        page = new_page(sink)
        expect(page.locator("#frame")).to_contain_text("frame 0,")
        yield Shown(sink, page)


@pytest.fixture
def moving(shown: Shown) -> Iterator[Shown]:
    """Write about thirty frames a second."""
    ended = threading.Event()

    def write() -> None:
        for index in count(1):
            if ended.wait(0.03):
                return
            shown.sink.write(*pair(index))

    thread = threading.Thread(target=write)
    thread.start()
    yield shown
    ended.set()
    thread.join()


def canvas(page: Page, name: str) -> Pixels:
    """Return the pixels of a canvas, (H, W, 3) uint8 RGB; transparent ones are black."""
    address = page.evaluate("id => document.getElementById(id).toDataURL('image/png')", name)
    data = np.frombuffer(base64.b64decode(address.partition(",")[2]), np.uint8)
    bgra = np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED), np.uint8)
    return bgra[..., 2::-1] * (bgra[..., 3:] > 0)


def seen(locator: Locator) -> Pixels:
    """Return a screenshot of an element, (H, W, 3) uint8."""
    data = np.frombuffer(locator.screenshot(), np.uint8)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def shown_index(page: Page) -> int:
    """Return the index of the frame on the page."""
    found = re.match(r"frame (\d+),", page.locator("#frame").inner_text())
    assert found
    return int(found[1])


def point(page: Page, column: int, row: int, size: tuple[int, int] = (48, 80)) -> None:
    """Point at the middle of a pixel of the depth."""
    box = page.locator("#depth").bounding_box()
    assert box
    page.mouse.move(
        box["x"] + (column + 0.5) / size[1] * box["width"],
        box["y"] + (row + 0.5) / size[0] * box["height"],
    )


def millimetres(depth: DepthMap, column: int, row: int) -> str:
    """Return the expected readout of a depth, exact to the millimetre."""
    return f"{round(float(depth.values[row, column]) * 1000) / 1000:.3f} m"


def test_the_picture_and_the_depth_are_those_of_the_frame(shown: Shown) -> None:
    """The colours are those of videos: OpenCV's Turbo over the model's range."""
    frame, depth = pair(0)
    expected = colour_depth(depth.values, depth.valid, SPEC.depth_range_m)

    coloured = canvas(shown.page, "depth").astype(int)
    picture = canvas(shown.page, "rgb").astype(int)

    # Rounding to millimetres may move a depth across the border of two colours.
    assert np.abs(coloured - expected).max() <= 12
    assert np.mean(coloured == expected) > 0.97
    assert np.abs(picture - frame.image).mean() < 6


def test_frames_move_and_numbers_follow(moving: Shown) -> None:
    """Later frames replace earlier ones on both canvases; the statistics are the stream's."""
    sink, page = moving
    before, first = canvas(page, "rgb"), shown_index(page)
    depth_before, ages_before = canvas(page, "depth"), canvas(page, "ages")
    sink.observe(STATS)

    page.wait_for_function(
        "first => Number(document.getElementById('frame').textContent.match(/\\d+/)[0]) > first",
        arg=first + 5,
    )

    assert np.abs(canvas(page, "rgb").astype(int) - before).max() > 20
    assert np.abs(canvas(page, "depth").astype(int) - depth_before).max() > 20
    expect(page.locator("#engine")).to_have_text(STATS.engine)
    expect(page.locator("#dropped")).to_have_text(str(STATS.dropped))
    expect(page.locator("#age")).to_have_text(f"{STATS.age.p99_ms:.0f}")
    assert (canvas(page, "ages") != ages_before).any()


def test_the_read_out_is_the_depth_under_the_pointer(shown: Shown) -> None:
    """It is exact to the millimetre at corners and in the middle; later frames keep the mark."""
    sink, page = shown
    depth = pair(0)[1]
    for column, row in ((79, 0), (79, 47), (0, 47), (33, 21), (5, 4)):
        point(page, column, row)
        text = f"{millimetres(depth, column, row)} at column {column}, row {row}"
        expect(page.locator("#readout")).to_have_text(text)
    point(page, 2, 3)
    expect(page.locator("#readout")).to_have_text("no depth at column 2, row 3")

    point(page, 60, 30)
    frame, later = pair(9)
    sink.write(frame, later)
    text = f"{millimetres(later, 60, 30)} at column 60, row 30"
    expect(page.locator("#readout")).to_have_text(text)


def test_a_thinned_frame_is_read_out_by_its_own_pixels(new_page: Callable[[Served], Page]) -> None:
    """Every third pixel is sent; column, row and depth are those of the frame."""
    with WebSink(SPEC, port=0, max_width=80) as sink:
        _, depth = pair(4, (144, 240))
        sink.write(*pair(4, (144, 240)))
        page = new_page(sink)
        expect(page.locator("#frame")).to_contain_text("frame 4,")
        point(page, 41, 17)
        text = f"{millimetres(depth, 123, 51)} at column 123, row 51"
        expect(page.locator("#readout")).to_have_text(text)


def test_the_keyboard_moves_the_mark(shown: Shown) -> None:
    """Arrows move it by one pixel, with shift by ten; Escape removes it."""
    page, depth = shown.page, pair(0)[1]
    page.locator("#depth").focus()
    for key in ("ArrowRight", "ArrowDown", "Shift+ArrowLeft"):
        page.keyboard.press(key)
    column, row = 40 + 1 - 10, 24 + 1
    text = f"{millimetres(depth, column, row)} at column {column}, row {row}"
    expect(page.locator("#readout")).to_have_text(text)
    page.keyboard.press("Escape")
    expect(page.locator("#readout")).to_have_text("")


def test_colours_and_range_act(shown: Shown) -> None:
    """For grey and linear between 2 m and 6 m the level is the position in the range."""
    page, depth = shown.page, pair(0)[1]
    page.select_option("#colours", "grey")
    page.select_option("#scale", "linear")
    page.fill("#near", "2")
    page.fill("#far", "6")

    share = (np.clip(depth.values, 2, 6) - 2) / 4
    expected = np.where(depth.valid, 255 - 255 * share, 0)
    assert np.abs(canvas(page, "depth")[..., 0] - expected).max() <= 1

    page.fill("#far", "1")
    assert page.locator("#far").evaluate("input => !input.checkValidity()")
    assert np.abs(canvas(page, "depth")[..., 0] - expected).max() <= 1


def test_an_automatic_range_covers_the_frame(shown: Shown) -> None:
    """It excludes the outer 2 % of the depths; a click restores the model's range."""
    page, depth = shown.page, pair(0)[1]
    page.check("#auto")
    near, far = (float(page.input_value(field)) for field in ("#near", "#far"))
    assert [near, far] == pytest.approx(np.percentile(depth.values[depth.valid], [2, 98]), rel=0.05)

    page.click("#full")
    assert not page.is_checked("#auto")
    assert [page.input_value("#near"), page.input_value("#far")] == ["0.4", "10"]


def test_pause_stops_this_viewer_only(moving: Shown, new_page: Callable[[Served], Page]) -> None:
    """Button and space bar stop the frames of this page; another page continues."""
    sink, page = moving
    other = new_page(sink)
    page.click("#pause")
    expect(page.locator("#state")).to_have_text("Paused")
    page.wait_for_timeout(200)
    stopped, going = shown_index(page), shown_index(other)
    page.wait_for_timeout(600)
    assert shown_index(page) == stopped
    assert shown_index(other) > going

    page.locator("#depth").focus()
    page.keyboard.press("Space")
    expect(page.locator("#state")).to_have_text("Live")
    page.wait_for_function(
        "n => Number(document.getElementById('frame').textContent.match(/\\d+/)[0]) > n",
        arg=stopped,
    )


def test_the_point_cloud_shows_the_scene_and_turns(shown: Shown) -> None:
    """It has hundreds of colours; dragging and keys change the view, and reset restores it."""
    page = shown.page
    expect(page.locator("#camera")).to_have_text(re.compile("camera unknown: .*60°"))
    cloud = page.locator("#cloud")
    cloud.scroll_into_view_if_needed()
    page.wait_for_timeout(200)
    home = seen(cloud)
    assert len(np.unique(home.reshape(-1, 3), axis=0)) > 200

    box = cloud.bounding_box()
    assert box
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 130, steps=4)
    page.mouse.up()
    page.wait_for_timeout(200)
    turned = seen(cloud)
    assert np.mean((turned != home).any(-1)) > 0.05

    page.click("#home")
    page.wait_for_timeout(200)
    assert np.mean((seen(cloud) != home).any(-1)) < 0.01

    page.select_option("#paint", "depth")
    page.wait_for_timeout(200)
    assert np.mean((seen(cloud) != home).any(-1)) > 0.05
    page.uncheck("#show-cloud")
    expect(cloud).to_be_hidden()


def test_it_comes_back_after_the_server_restarts(new_page: Callable[[Served], Page]) -> None:
    """It does so automatically, on the same port and with the same token, without a reload.

    Until then it reports the end of the stream, and retries silently.
    """
    with WebSink(SPEC, port=0, token=TOKEN) as sink:
        port = urlsplit(sink.address).port or 0
        sink.write(*pair(0))
        page = new_page(sink)
        assert TOKEN not in page.url
        page.evaluate("window.notReloaded = true")
    expect(page.locator("#state")).to_have_text("The stream has ended")
    page.wait_for_timeout(1500)
    expect(page.locator("#state")).to_have_text("The stream has ended")

    with WebSink(SPEC, port=port, token=TOKEN) as sink:
        sink.write(*pair(33))
        expect(page.locator("#state")).to_have_text("Live", timeout=15_000)
        expect(page.locator("#frame")).to_contain_text("frame 33,")
        assert page.evaluate("window.notReloaded")


def test_a_server_that_dies_is_told_from_a_stream_that_ended(
    new_page: Callable[[Served], Page], tmp_path: Path
) -> None:
    """A killed process closes no connection: the page reports that it retries."""
    write_brightness_model(tmp_path / "model.onnx", (48, 80))
    source = "synthetic:room?frames=100000&size=48x80"
    options = ("--max-fps", "20", "--web-address", "127.0.0.1:0")
    with StreamProcess([tmp_path / "model.onnx", source, *options]) as process:
        page = new_page(Elsewhere(process.page()))
        expect(page.locator("#camera")).to_have_text(re.compile("field of view 63°"))
        page.wait_for_load_state("networkidle")  # the icon comes after all that `goto` waits for
        process.kill()
        expect(page.locator("#state")).to_contain_text(re.compile("No connection|Connecting"))


def test_it_fits_every_width_and_both_themes(shown: Shown) -> None:
    """Nothing is wider than the window; it is dark if the system is dark."""
    page = shown.page
    for width in (360, 800, 1600):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    for dark in (True, False):
        page.emulate_media(color_scheme="dark" if dark else "light")
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        level = np.mean([int(part) for part in re.findall(r"\d+", back)])
        assert (level < 64) == dark


def test_the_names_of_curves_fit_a_narrow_window(shown: Shown) -> None:
    """All texts of the charts end within them at the width of a phone, and are there."""
    sink, page = shown
    page.evaluate(
        """() => {
          window.texts = [];
          const draw = CanvasRenderingContext2D.prototype.fillText;
          CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
            const right = x + (this.textAlign === "right" ? 0 : this.measureText(text).width);
            window.texts.push([text, right - this.canvas.clientWidth, y]);
            draw.call(this, text, x, y);
          };
        }"""
    )
    page.set_viewport_size({"width": 390, "height": 844})
    sink.observe(STATS)
    page.wait_for_function("() => window.texts.filter(([text]) => text === 'write').length > 1")
    texts = page.evaluate("window.texts")
    assert {"median", "99 %", "99 % until written", "capture", "write"} <= {t for t, _, _ in texts}
    page.wait_for_function("() => document.getElementById('ages').clientWidth < 390")
    page.evaluate("window.texts.length = 0")
    sink.observe(STATS)
    page.wait_for_function("() => window.texts.some(([text]) => text === 'write')")
    assert [each for each in page.evaluate("window.texts") if each[1] > 0] == []


def test_the_end_of_a_stream_is_shown(new_page: Callable[[Served], Page]) -> None:
    """Its last frame and its last statistics, also if a frame is still drawn."""
    with WebSink(SPEC, port=0) as sink:
        page = new_page(sink)
        for index in range(12):
            sink.write(*pair(index))
            page.wait_for_timeout(20)
        sink.observe(replace(STATS, frames=12, total=12))
    expect(page.locator("#state")).to_have_text("The stream has ended")
    expect(page.locator("#frame")).to_contain_text("frame 11,")
    expect(page.locator("#frames")).to_have_text("12 of 12")


def test_every_control_has_a_name_and_is_reached_by_the_keyboard(shown: Shown) -> None:
    """The tab key reaches all of them in order."""
    page = shown.page
    for role, name in (
        ("button", "Pause"),
        ("combobox", "Colours"),
        ("spinbutton", "Nearest (m)"),
        ("spinbutton", "Farthest (m)"),
        ("checkbox", "Automatic range"),
    ):
        expect(page.get_by_role(role, name=name)).to_have_count(1)  # type: ignore[arg-type]
    visited = []
    for _ in range(13):
        page.keyboard.press("Tab")
        visited.append(page.evaluate("document.activeElement.id"))
    assert visited == [
        *("pause", "colours", "scale", "near", "far", "auto", "full", "show-cloud"),
        *("depth", "cloud", "paint", "point", "home"),
    ]
