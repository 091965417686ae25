"""What becomes of a benchmark's report: JSON, Markdown, and the verdict against an earlier run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msfnet_runtime.files import atomic_path

if TYPE_CHECKING:
    from msfnet_benchmarks.report.report import BenchmarkReport


@dataclass(frozen=True)
class BenchOutputs:
    """Files to write, None: not that one; and what to hold the report against."""

    json: Path | None = None
    markdown: Path | None = None
    earlier: Path | None = None
    """JSON of an earlier run."""
    tolerance: float = 0.05
    """Share by which a figure may be worse than in the earlier run."""

    def files(self) -> tuple[Path, ...]:
        """Return the files that will be written, and find out that the earlier run can be read.

        Raises:
            MsfnetError: it cannot.
        """
        if self.earlier:
            from msfnet_benchmarks.report.regressions import read_report

            read_report(self.earlier)
        return tuple(path for path in (self.json, self.markdown) if path)

    def write(self, report: BenchmarkReport, say: Callable[[str], None]) -> bool:
        """Write the files, say what changed, and return whether nothing got worse.

        Raises:
            MsfnetError: a file cannot be written, or the runs have nothing in common.
        """
        passed = True
        if self.earlier:  # first: the JSON may take the earlier one's place
            from msfnet_benchmarks.report.regressions import compare_with

            found = compare_with(self.earlier, report, self.tolerance)
            say(found.text())
            passed = found.passed
        contents = {self.json: report.to_json, self.markdown: report.markdown}
        for path, content in contents.items():
            if path:
                with atomic_path(path) as partial:
                    partial.write_text(content() + "\n", encoding="utf-8")
        return passed
