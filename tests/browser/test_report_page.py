"""The report of a benchmark in a real browser: from a file, without a network, and it responds."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright

from msfnet_benchmarks.report.pictures import gallery
from msfnet_benchmarks.report.writer import write_page
from msfnet_runtime import DepthMap, Frame
from tests.benchmarks.report.full_report import NAMES, full_report

WIDE, NARROW = (1280, 900), (420, 900)

CHARTS = (
    *("pareto-latency", "pareto-engine_latency", "percentiles-latency"),
    *("percentiles-engine_latency", "calls-latency", "calls-engine_latency", "stages"),
    *("throughput", "rounds", "bound", "layers", "profile-operator", "profile-block"),
    *("start", "memory", "error", "images"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start the system's Chromium."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no chromium on the path; install it to test the report's page")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a report in which everything is measured, pictures too."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    report = full_report()
    truth = np.geomspace(1, 8, 120 * 160, dtype=np.float32).reshape(120, 160)
    depths = {
        row.name: DepthMap(truth * np.float32(scale), truth > 0, 0, 0.0)
        for row, scale in zip(report.rows, (1.05, 1.1, 1.2, 1.3, 0.9), strict=True)
    }
    image = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    frame = Frame(image, 0, name="made up")
    write_page(report, path, gallery(depths, frame, range_m=(0.5, 10.0), ground_truth=truth))
    return path


@pytest.fixture
def opened(browser: Browser, file: Path) -> Iterator[Callable[[tuple[int, int]], Page]]:
    """Return what opens the file in a window; requests and complaints fail the test."""
    context = browser.new_context()
    complaints: list[str] = []

    def refuse(route: Route) -> None:
        complaints.append(f"asked for {route.request.url}")
        route.abort()

    def open_page(size: tuple[int, int]) -> Page:
        page = context.new_page()
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.route(re.compile("^(?!file:|data:|blob:)"), refuse)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(file.as_uri())
        expect(page.locator(".main-svg").first).to_be_visible()
        return page

    context.set_offline(True)
    yield open_page
    context.close()
    assert complaints == []


def chart(page: Page, key: str) -> Locator:
    """Return a chart of the page."""
    return page.locator(f"#chart-{key}")


def traces(page: Page, key: str) -> list[dict[str, Any]]:
    """Return what plotly holds of a chart's traces."""
    script = (
        "node => node.data.map(t => ({name: t.name, visible: t.visible === undefined"
        " ? true : t.visible}))"
    )
    return list(chart(page, key).evaluate(script))


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_every_chart_is_drawn_and_fits_the_window(
    opened: Callable[[tuple[int, int]], Page], size: tuple[int, int]
) -> None:
    """Offline, from a file, on a screen and on a telephone: nothing empty, nothing to scroll."""
    page = opened(size)

    keys = page.locator(".plotly-graph-div").evaluate_all("nodes => nodes.map(n => n.id)")
    assert sorted(keys) == sorted(f"chart-{key}" for key in CHARTS)
    for key in CHARTS:
        marks = (
            chart(page, key)
            .locator("path, text")
            .evaluate_all("nodes => nodes.filter(n => n.getBoundingClientRect().width > 0).length")
        )
        assert marks > 5, key
        drawn = (
            chart(page, key)
            .locator(".overplot path")
            .evaluate_all(
                "nodes => nodes.filter(n => { const b = n.getBoundingClientRect();"
                " return b.width + b.height > 3; }).length"
            )
        )
        assert drawn > 0, key
        box = chart(page, key).bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= size[0]
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]


def test_the_pictures_are_shown(opened: Callable[[tuple[int, int]], Page]) -> None:
    """All decoded, at their size, with their scales."""
    page = opened(WIDE)
    sizes = page.locator(".pictures img").evaluate_all(
        "nodes => nodes.map(n => [n.naturalWidth, n.naturalHeight])"
    )

    assert sizes == [[160, 120]] * (2 + 5 + 5)
    assert page.locator(".scale").count() == 2


def test_a_click_on_the_legend_hides_a_model(opened: Callable[[tuple[int, int]], Page]) -> None:
    """Its curve goes, and comes back with the next click."""
    page = opened(WIDE)
    curves = chart(page, "calls-latency").locator(".scatterlayer .trace")
    expect(curves).to_have_count(4)
    toggle = chart(page, "calls-latency").locator(".legendtoggle").nth(1)

    toggle.click()
    expect(curves).to_have_count(3)
    assert traces(page, "calls-latency")[1] == {"name": NAMES[1], "visible": "legendonly"}
    page.wait_for_timeout(600)  # A click sooner would be the second of a double one.
    toggle.click()
    expect(curves).to_have_count(4)


def test_a_point_tells_its_figures_when_pointed_at(
    opened: Callable[[tuple[int, int]], Page],
) -> None:
    """Model, latency, error and size, as in the report."""
    page = opened(WIDE)
    point = chart(page, "pareto-latency").locator(".scatterlayer .points path").nth(1)
    point.scroll_into_view_if_needed()
    point.hover(force=True)
    row = full_report().rows[1]
    assert row.latency is not None
    assert row.accuracy is not None

    label = chart(page, "pareto-latency").locator(".hoverlayer")
    expect(label).to_contain_text(row.name)
    expect(label).to_contain_text(f"REL {row.accuracy.summary.rel:.4f}")
    expect(label).to_contain_text(f"{row.latency.p50_ms:.4g} ms")


def test_choosing_a_model_shows_its_layers(opened: Callable[[tuple[int, int]], Page]) -> None:
    """The menu above the bars changes them."""
    page = opened(WIDE)
    layers = chart(page, "layers")
    before = layers.locator(".barlayer .point path").evaluate_all(
        "nodes => nodes.map(n => n.getAttribute('d'))"
    )
    assert len(before) == 25

    layers.locator(".updatemenu-header").click()
    layers.locator(".updatemenu-dropdown-button", has_text=NAMES[2]).click()

    expect(layers.locator(".updatemenu-header")).to_contain_text(NAMES[2])
    assert [t["visible"] for t in traces(page, "layers")] == [False, True, False]
    after = layers.locator(".barlayer .point path").evaluate_all(
        "nodes => nodes.map(n => n.getAttribute('d'))"
    )
    assert len(after) == 25
    assert after != before


def test_the_contents_lead_to_every_section(opened: Callable[[tuple[int, int]], Page]) -> None:
    """No link goes nowhere, and following one scrolls there."""
    page = opened(WIDE)
    targets = page.locator("nav a").evaluate_all("nodes => nodes.map(n => n.getAttribute('href'))")

    assert len(targets) == len(CHARTS) + 4  # tables, two groups of pictures, the run
    for target in targets:
        assert page.locator(f"section{target}").count() == 1
    page.locator("nav a", has_text="Layers").click()
    expect(page.locator("section#layers")).to_be_in_viewport()
