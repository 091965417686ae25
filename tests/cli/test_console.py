"""The progress and the result of a command where there is no terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from msfnet.cli.console import progress, show


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time that the display reads, seconds; it stands still until a test moves it."""
    now = [100.0]
    monkeypatch.setattr("msfnet.cli.console.time.monotonic", lambda: now[0])
    return now


def test_lines_show_percent_elapsed_and_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """The first report, the last, and one at least five seconds after the last line."""
    with progress("train") as report:
        for done in range(5):
            report(done, 4, "steps")
            clock[0] += 4

    assert capsys.readouterr().err.splitlines() == [
        "train: 0/4 steps (0%, 0:00 elapsed)",
        "train: 2/4 steps (50%, 0:08 elapsed, 0:08 left)",
        "train: 4/4 steps (100%, 0:16 elapsed)",
    ]


def test_every_count_prints_its_first_report(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """Even right after the last line: what follows may take long."""
    with progress("train") as report:
        for total, what in ((9, "checking"), (0, "preparing"), (50, "loss 0.5")):
            report(1 if total else 0, total, what)
            clock[0] += 1

    assert capsys.readouterr().err.splitlines() == [
        "train: 1/9 checking (11%, 0:00 elapsed)",
        "train: preparing (0:01 elapsed)",
        "train: 1/50 loss 0.5 (2%, 0:02 elapsed)",
    ]


def test_a_finished_count_has_one_line(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """Work after it, such as the validation of the last epoch, prints every five seconds."""
    with progress("train") as report:
        for what in ("loss 0.5", *(f"validation batch {n}/6" for n in range(1, 7))):
            report(4, 4, what)
            clock[0] += 2

    assert capsys.readouterr().err.splitlines() == [
        "train: 4/4 loss 0.5 (100%, 0:00 elapsed)",
        "train: 4/4 validation batch 3/6 (100%, 0:06 elapsed)",
        "train: 4/4 validation batch 6/6 (100%, 0:12 elapsed)",
    ]


def test_the_time_left_is_that_of_the_present_count(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """A resumed count starts where it was; another total starts anew."""
    with progress("bench") as report:
        report(0, 2, "load")
        clock[0] += 3000
        report(10, 30, "measure")
        clock[0] += 700
        report(20, 30, "measure")

    assert capsys.readouterr().err.splitlines() == [
        "bench: 0/2 load (0%, 0:00 elapsed)",
        "bench: 10/30 measure (33%, 50:00 elapsed)",
        "bench: 20/30 measure (67%, 1:01:40 elapsed, 11:40 left)",
    ]


def test_an_unknown_total_has_no_percent(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """The count alone, and no count before there is one."""
    with progress("stream") as report:
        report(0, 0, "opening")
        clock[0] += 5
        report(17, 0, "10 frames/s")

    assert capsys.readouterr().err.splitlines() == [
        "stream: opening (0:00 elapsed)",
        "stream: 17 10 frames/s (0:05 elapsed)",
    ]


def test_a_result_is_shown_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The text is printed beside the file; ``-`` prints only the JSON."""
    show("seven", '{"found": 7}', tmp_path / "found.json")
    assert capsys.readouterr().out == "seven\n"
    assert json.loads((tmp_path / "found.json").read_text()) == {"found": 7}

    show("seven", '{"found": 7}', Path("-"))
    assert json.loads(capsys.readouterr().out) == {"found": 7}
