"""Measures depth models: metrics and protocols, timing, and reports of both.

The names are imported when first used: scoring needs no report, and a cold start none of this.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "BenchmarkReport": "msfnet_benchmarks.report.report",
    "Candidate": "msfnet_benchmarks.candidates",
}

if TYPE_CHECKING:
    from msfnet_benchmarks.candidates import Candidate
    from msfnet_benchmarks.report.report import BenchmarkReport

__all__ = ["BenchmarkReport", "Candidate"]


def __getattr__(name: str) -> Any:
    """Import a public name from the file it lives in."""
    if name not in _HOMES:
        raise AttributeError(f"module 'msfnet_benchmarks' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
