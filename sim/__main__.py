"""Run histories: `python -m sim --help`."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import Final, NamedTuple

import docopt

from sim.kernel.clock import SettableClock
from sim.runner.history import SWARMS, TRACE_LINES, HistoryOrder, drawn_scenario, play
from sim.runner.workers import Report, reports
from sim.scenarios import SCENARIOS
from sim.swarm.fault_kinds import KINDS
from tradebot.output.streams import run_tool

USAGE = """\
Run the engine's own threads under simulated time. A seed determines one history, bit for bit, in any process.

Usage:
  sim [options]         (that is: python -m sim [options])

Options:
  --seed=N          Run only this seed; with --seeds, start with it.
  --seeds=N         Run N seeds, starting with --first. Default: 20, or no limit with --minutes or --until-failure.
  --first=N         The first seed [default: 1].
  --scenario=NAMES  Run these scenarios, separated by commas, with every seed. Default: the seed selects one.
  --faults=KINDS    Scenarios "swarm" and "paper_swarm" only: inject exactly these kinds of faults, separated by commas,
                    in every history (as far as its feed allows them); "none": no faults; "all": the seed selects them,
                    as by default.
  --sim-seconds=S   Scenarios "swarm" and "paper_swarm" only: inject no fault later than S simulated seconds after the
                    start of a process.
  --until-failure   Stop at the first failure.
  --minutes=M       Stop after M minutes.
  --jobs=N          The number of worker processes. Default: one for each processor, at most one for each history.
  --trace           Print every record of each history.
  --no-shrink       Do not search for a smaller history that fails in the same way.
  --list            List the scenarios and the kinds of faults.
  -h --help         Show this help.

The first line of a history lists what the seed has drawn. Each history ends with one line on standard output:

  seed=N history=SHA256 ok|FAIL steps=N sim_s=SECONDS faults=KINDS scenario=NAME

After a failure, the output says what is wrong, which command repeats it, which smaller history still fails, and what
happened in that one. The last line, on standard error, is a summary.

Exit codes:
    0  all histories passed
    1  a history failed
   12  the command line is wrong
  130  interrupted
  141  standard output was closed by its reader
"""

_DEFAULT_SEEDS: Final = 20
_FIRST_SEED: Final = 1
_INTERRUPTED: Final = 130


class _Misused(Exception):
    """What is wrong with the command line, in one line."""


class _Task(NamedTuple):
    """What the command line asks for."""

    names: tuple[str, ...] | None
    first: int
    seeds: int | None
    only: frozenset[str] | None
    safety_s: float | None
    until_failure: bool
    minutes: float | None
    jobs: int
    trace: bool
    shrinks: bool

    def orders(self, end_s: float) -> Iterator[HistoryOrder]:
        """One after the other, as long as there is time."""
        numbers = count(self.first) if self.seeds is None else range(self.first, self.first + self.seeds)
        for seed in numbers:
            for name in self.names or (drawn_scenario(seed),):
                if _real_s() >= end_s:
                    return
                bound = name in SWARMS
                yield HistoryOrder(name, seed, self.only if bound else None, self.safety_s if bound else None)


def run_one(name: str, seed: int, freezer: SettableClock | None) -> tuple[str, str | None, int, float]:
    """One history: its hash, what went wrong (None: nothing), steps and simulated seconds."""
    history = play(HistoryOrder(name, seed), freezer)
    failure = None if history.failure is None else "\n".join([history.failure, history.details, *history.journal])
    return history.digest, failure, history.steps, history.sim_s


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 all histories passed, 1 one failed, 12 misused, 130 interrupted."""
    try:
        given = docopt.docopt(USAGE, argv)
        if given["--list"]:
            _list()
            return 0
        task = _task(given)
    except docopt.DocoptExit:
        print("unknown option or missing value; try python -m sim --help", file=sys.stderr)
        return 12
    except _Misused as error:
        print(f"{error}; try python -m sim --help", file=sys.stderr)
        return 12
    return _hunt(task)


def _list() -> None:
    for name, function in SCENARIOS.items():
        print(f"{name}: {(function.__doc__ or '').splitlines()[0]}")
    print(f"\nkinds of faults of the swarm: {', '.join(KINDS)}")


def _task(given: dict[str, str | bool | None]) -> _Task:
    seed, seeds = _whole(given, "--seed"), _whole(given, "--seeds", 0)
    minutes, until_failure = _number(given, "--minutes"), bool(given["--until-failure"])
    if seeds is None and minutes is None and not until_failure:
        seeds = _DEFAULT_SEEDS
    names = _names(given["--scenario"], "scenario", tuple(SCENARIOS))
    only = None if given["--faults"] == "all" else _names(given["--faults"], "kind of fault", (*KINDS, "none"))
    first = _whole(given, "--first") or 0
    if seed is not None:
        if first not in (_FIRST_SEED, seed):
            raise _Misused(f"--seed={seed} and --first={first}: give one of them")
        first, seeds = seed, 1 if given["--seeds"] is None else seeds
    jobs = _whole(given, "--jobs", 1) or len(os.sched_getaffinity(0))
    if seeds is not None:
        jobs = max(1, min(jobs, seeds * (1 if names is None else len(names))))
    return _Task(
        names, first, seeds, None if only is None else frozenset(only) - {"none"}, _number(given, "--sim-seconds"),
        until_failure, minutes, jobs, bool(given["--trace"]), not given["--no-shrink"],
    )  # fmt: skip


def _whole(given: dict[str, str | bool | None], option: str, least: int | None = None) -> int | None:
    text = given[option]
    if text is None:
        return None
    try:
        value = int(str(text))
    except ValueError:
        raise _Misused(f"{option} takes a whole number, not {text!r}") from None
    if least is not None and value < least:
        raise _Misused(f"{option} is at least {least}, not {value}")
    return value


def _number(given: dict[str, str | bool | None], option: str) -> float | None:
    text = given[option]
    if text is None:
        return None
    try:
        value = float(str(text))
    except ValueError:
        raise _Misused(f"{option} takes a number, not {text!r}") from None
    if not 0 <= value < float("inf"):
        raise _Misused(f"{option} is finite and not below 0, not {text}")
    return value


def _names(text: str | bool | None, what: str, known: tuple[str, ...]) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(str(text).split(","))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise _Misused(f"unknown {what} {', '.join(unknown)}; there are: {', '.join(known)}")
    return names


# ---- the hunt ------------------------------------------------------------------------------------------------------


def _real_s() -> float:
    """Real seconds since some moment: a clock that freezegun leaves alone."""
    return os.times().elapsed


class _Tally:
    """What all histories together come to."""

    def __init__(self) -> None:
        self.began_s = _real_s()
        self.histories = 0
        self.failed = 0
        self.sim_s = 0.0
        self.injected: Counter[str] = Counter()

    def add(self, report: Report) -> None:
        self.histories += 1
        self.failed += report.history.failure is not None
        self.sim_s += report.history.sim_s
        self.injected.update(report.history.injected)

    @property
    def summary(self) -> str:
        real_min = max(_real_s() - self.began_s, 0.01) / 60
        hours = self.sim_s / 3600
        injected = ", ".join(f"{kind} {n}" for kind, n in sorted(self.injected.items())) or "none"
        return (
            f"{self.histories} histories, {self.failed} failed; {hours:.2f} simulated hours in {real_min:.2f} min"
            f" ({hours / real_min:.2f} h per minute); faults injected: {injected}"
        )


def _hunt(task: _Task) -> int:
    tally = _Tally()
    end_s = float("inf") if task.minutes is None else tally.began_s + 60 * task.minutes
    watched = sys.stderr.isatty()
    interrupted = False
    try:
        with reports(task.orders(end_s), task.jobs, None if task.trace else TRACE_LINES, task.shrinks) as found:
            for report in found:
                tally.add(report)
                if watched:
                    print("\r\033[K", end="", file=sys.stderr, flush=True)
                _print(report, task.trace)
                if watched:
                    print(f"{tally.histories} histories, {tally.failed} failed", end="", file=sys.stderr, flush=True)
                if task.until_failure and tally.failed:
                    break
    except KeyboardInterrupt:
        interrupted = True
    if watched:
        print("\r\033[K", end="", file=sys.stderr)
    print(tally.summary + ("; interrupted" if interrupted else ""), file=sys.stderr)
    return _INTERRUPTED if interrupted else 1 if tally.failed else 0


def _print(report: Report, trace: bool) -> None:
    history, shrunk = report.history, report.shrunk
    order = history.order
    lines = [f"seed={order.seed} scenario={order.scenario} faults={','.join(history.faults) or 'none'}"]
    if trace:
        lines += history.journal
    lines.append(history.line)
    if history.failure is not None:
        lines += [f"wrong: {history.failure}", f"rerun: {order.command}"]
        shown = history
        if shrunk is not None and shrunk.history is not history:
            shown = shrunk.history
            lines += [
                f"shrunk ({shrunk.tried} histories tried), with {len(shown.faults)} of {len(history.faults)} kinds of"
                f" faults and {shown.sim_s:.1f} of {history.sim_s:.1f} simulated seconds:",
                f"  wrong: {shown.failure}",
                f"  rerun: {shown.order.command}",
            ]
        if shown.details:
            lines += shown.details.splitlines()
        if not trace or shown is not history:
            lines += ["what happened ([process] simulated time):", *shown.journal]
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    run_tool(main)
