"""Budgets: how much depth error a lower precision may add, written as ``rel +1%``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from msfnet_benchmarks.scoring.metrics import HEADINGS, SHARES, DepthMetrics
from msfnet_runtime import MsfnetError

ERRORS = tuple(name for name in HEADINGS if name not in (*SHARES, "rmse_pooled"))
"""Metrics of one image that grow as depth gets worse."""

_FORM = re.compile(r"\s*([a-z_0-9]+)\s*([+-])\s*(\d+(?:\.\d*)?|\.\d+)\s*(%?)\s*")


@dataclass(frozen=True)
class Budget:
    """The worst value of one metric that is allowed, relative to that of the reference model."""

    metric: str
    """One of :data:`ERRORS` or :data:`SHARES`."""
    amount: float
    """Allowed loss of the metric, positive."""
    relative: bool
    """The amount is a fraction of the reference's value, not an absolute difference."""

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``rel +1%``, ``rmse +0.01`` or ``delta1 -0.003``.

        Raises:
            MsfnetError: another form, an unknown metric, or the sign of an improvement.
        """
        found = _FORM.fullmatch(text)
        if not found:
            raise MsfnetError(
                f"budget {text!r} cannot be read; write for example 'rel +1%' or 'delta1 -0.003'"
            )
        metric, sign, number, percent = found.groups()
        if metric not in ERRORS + SHARES:
            raise MsfnetError(
                f"unknown metric {metric!r}; choose one of {', '.join(ERRORS + SHARES)}"
            )
        if sign != ("+" if metric in ERRORS else "-"):
            raise MsfnetError(
                f"budget {text!r} asks for better depth than the reference's; errors may rise "
                "('rel +1%'), shares may fall ('delta1 -0.003')"
            )
        return cls(metric, float(number) / (100 if percent else 1), bool(percent))

    def loss(self, metrics: DepthMetrics, reference: DepthMetrics) -> float:
        """Return the metric's loss, in the budget's unit; negative where depth is better."""
        value, before = getattr(metrics, self.metric), getattr(reference, self.metric)
        lost = float(value - before) if self.metric in ERRORS else float(before - value)
        return lost / float(before) if self.relative else lost

    def allows(self, metrics: DepthMetrics, reference: DepthMetrics) -> bool:
        """Tell whether a model is within the budget."""
        return self.loss(metrics, reference) <= self.amount

    def change(self, loss: float) -> float:
        """Return by how much the metric moves when it loses an amount."""
        return loss if self.metric in ERRORS else -loss

    def write(self, loss: float) -> str:
        """Return a loss written as a budget is."""
        change = self.change(loss)
        return f"{self.metric} {change:+.2%}" if self.relative else f"{self.metric} {change:+.4f}"

    def __str__(self) -> str:
        """Return the budget as a user writes it."""
        amount = f"{100 * self.amount:g}%" if self.relative else f"{self.amount:g}"
        return f"{self.metric} {'+' if self.metric in ERRORS else '-'}{amount}"
