"""The time of a command whose PyTorch threads wait in different ways, quiet and busy.

``python -m tests.rigs.waiting_threads -- evaluate CKPT --data DATA --protocol P``: the command runs
in turns with every setting of :data:`WAITING`, first alone on the machine, then beside as many
processes that only compute as there are cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import MappingProxyType

from msfnet_benchmarks.tables import format_table

WAITING: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "spinning": {"GOMP_SPINCOUNT": "300000"},
        "short spin": {"GOMP_SPINCOUNT": "10000"},
        "passive": {"OMP_WAIT_POLICY": "passive"},
    }
)
"""Environment by setting; ``spinning`` is what OpenMP does by default."""

_COMPUTE = "while True: pass"


@contextmanager
def other_work(processes: int) -> Iterator[None]:
    """Keep processes computing inside the ``with`` block."""
    with ExitStack() as stack:
        for _ in range(processes):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", _COMPUTE]))
            stack.callback(process.kill)
        yield


def time_command(command: Sequence[str], variables: Mapping[str, str]) -> float:
    """Run a command with one setting in its environment; return its wall time in seconds.

    Raises:
        CalledProcessError: the command failed.
    """
    chosen = {name for setting in WAITING.values() for name in setting}
    others = {name: value for name, value in os.environ.items() if name not in chosen}
    begun = time.monotonic()
    null = subprocess.DEVNULL
    subprocess.run(command, env={**others, **variables}, check=True, stdout=null, stderr=null)
    return time.monotonic() - begun


def compare(command: Sequence[str], *, rounds: int, busy: int) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of every round by state of the machine and by setting.

    Args:
        command: program and arguments.
        rounds: how often each setting has its turn.
        busy: processes that compute beside it in the second half.
    """
    results: dict[str, dict[str, list[float]]] = {}
    for state, processes in (("quiet", 0), ("busy", busy)):
        times: dict[str, list[float]] = {name: [] for name in WAITING}
        with other_work(processes):
            for _ in range(rounds):
                for name, variables in WAITING.items():
                    times[name].append(time_command(command, variables))
                    print(f"{state}, {name}: {times[name][-1]:.1f} s", file=sys.stderr, flush=True)
        results[state] = times
    return results


def describe(results: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Return the median seconds as a table, with the median ratio to the first setting."""
    rows = []
    for state, times in results.items():
        first = next(iter(times.values()))
        for name, seconds in times.items():
            ratio = statistics.median(a / b for a, b in zip(seconds, first, strict=True))
            spread = f"{min(seconds):.1f} to {max(seconds):.1f}"
            rows.append((state, name, f"{statistics.median(seconds):.1f}", spread, f"{ratio:.2f}"))
    return format_table(("machine", "threads", "median s", "range s", "ratio"), rows)


def main() -> int:
    """Compare the settings for the command on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.rigs.waiting_threads")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--busy", type=int, default=os.cpu_count() or 1)
    parser.add_argument("command", nargs="+", help="an msfnet command, after --")
    options = parser.parse_args()
    command = [sys.executable, "-m", "msfnet", *options.command]
    print(f"load average before: {os.getloadavg()[0]:.1f}")
    print(describe(compare(command, rounds=options.rounds, busy=options.busy)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
