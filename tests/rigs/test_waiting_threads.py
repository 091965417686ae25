"""The comparison of ways to wait, with a command that takes no time."""

from __future__ import annotations

import re
import sys

from tests.rigs.waiting_threads import WAITING, compare, describe


def test_every_setting_has_its_turn_on_a_quiet_and_a_busy_machine() -> None:
    """The command succeeds only with exactly one setting; the table has a ratio for each."""
    names = sorted({name for setting in WAITING.values() for name in setting})
    check = f"import os; assert sum(name in os.environ for name in {names}) == 1"

    results = compare([sys.executable, "-c", check], rounds=2, busy=1)

    assert {state: list(times) for state, times in results.items()} == {
        "quiet": list(WAITING),
        "busy": list(WAITING),
    }
    assert all(len(seconds) == 2 for times in results.values() for seconds in times.values())
    assert re.search(r"busy +passive .*\d\.\d\d$", describe(results), re.MULTILINE)
