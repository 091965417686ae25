"""Writes a report: JSON for programs, Markdown for a pull request, a page to read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from msfnet_benchmarks.report import tables
from msfnet_benchmarks.report.pictures import Picture
from msfnet_benchmarks.report.regressions import compare_with, read_report
from msfnet_benchmarks.report.report import BenchmarkReport
from msfnet_runtime import MsfnetError
from msfnet_runtime.files import atomic_path
from msfnet_runtime.typed import to_json


@dataclass(frozen=True)
class ReportFiles:
    """The files to write, None: not that one; and the earlier run to compare with."""

    json: Path | None = None
    markdown: Path | None = None
    page: Path | None = None
    """HTML, with its JSON beside it."""
    earlier: Path | None = None
    """JSON of an earlier run."""
    tolerance: float = 0.05
    """Share of its earlier value by which a figure may get worse."""

    @property
    def outputs(self) -> list[Path]:
        """The files that will be written."""
        beside = self.page.with_suffix(".json") if self.page else None
        return [path for path in (self.json, self.markdown, self.page, beside) if path]

    def check(self) -> None:
        """Check before the work that the earlier run can be read.

        Raises:
            MsfnetError: it cannot, or the page has its JSON's name.
        """
        if self.earlier:
            read_report(self.earlier)
        if self.page:
            _check_page_path(self.page)

    def write(
        self,
        report: BenchmarkReport,
        pictures: Sequence[Picture] = (),
        say: Callable[[str], None] = print,
    ) -> bool:
        """Write the files, say what changed, and return whether nothing got worse.

        Raises:
            MsfnetError: a file cannot be written, or the runs have nothing in common.
        """
        passed = True
        if self.page:
            write_page(report, self.page, pictures)
            say(f"report: {self.page}")
        if self.earlier:
            found = compare_with(self.earlier, report, self.tolerance)
            say(found.text())
            passed = found.passed
        if self.json:
            _write(self.json, to_json(report) + "\n")
        if self.markdown:
            _write(self.markdown, tables.markdown(report) + "\n")
        return passed


def write_page(report: BenchmarkReport, path: Path, pictures: Sequence[Picture] = ()) -> None:
    """Write the page, and the JSON beside it (``report.html``, ``report.json``).

    ``bench_schema.json`` beside this module describes the JSON. A figure that is not a number
    (nothing was valid) or infinite is null: JSON has neither.

    Args:
        report: what was measured.
        path: of the page.
        pictures: shown on the page in this order; they are not in the JSON.

    Raises:
        MsfnetError: a file cannot be written, ``path`` ends in ``.json``, or plotly is missing.
    """
    from msfnet_benchmarks.report.page import render_page

    _check_page_path(path)
    page = render_page(report, pictures)
    with atomic_path(path) as html, atomic_path(path.with_suffix(".json")) as data:
        html.write_text(page, encoding="utf-8")
        data.write_text(to_json(report) + "\n", encoding="utf-8")


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _check_page_path(path: Path) -> None:
    """Refuse a page's path that its JSON would overwrite.

    Raises:
        MsfnetError: it ends in ``.json``.
    """
    if path.suffix.lower() == ".json":
        raise MsfnetError(f"{path} is the JSON's name; name the page, for example report.html")
