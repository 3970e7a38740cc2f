"""Tests recovery from a kill, a power loss and an I/O error at every file operation of the engine.

Starts, runs, replays, spills and stops are killed before every operation that changes a file, and in the middle of
writes. Power losses leave every state of the disk that POSIX allows (tests/recovery/disk.py lists them). Calls fail
once or permanently. After each point the engine is started again without faults, and its database is checked
(tests/recovery/judge.py). Exit code: 0 all passed, or a message and no test if there is no C compiler; 1 a test failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from tests.recovery.judge import FAULTS, memory
from tests.recovery.lab import Bench, Limits, Struck
from tests.recovery.points import ERRORS, POINT_KINDS, Point, PointKind
from tests.recovery.scenarios import SCENARIOS, SYNCHRONOUS, Place, write_inputs
from tests.recovery.shim import Shim, ShimUnavailable, build, end_with_parent
from tradebot.config.model import Synchronous

_LIBRARY: Final = "TRADEBOT_RECOVERY_SHIM"
_WHOLE: Final = Limits(changes=300, torn=100, images=2, calls=5)
_FEW: Final = Limits(changes=12, torn=4, images=2, calls=1)
_SHOWN: Final = 20


def main(argv: Sequence[str] | None = None, module: str = "tests.recovery.run") -> int:
    """The command: prints a table and each fault with the command that shows it again.

    `module`, with its arguments if it has any, is run anew with the shim in the process.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    options = _options(words)
    library = os.environ.get(_LIBRARY)
    if library is None:
        return _preloaded(words, module)
    del os.environ[_LIBRARY], os.environ["LD_PRELOAD"]
    try:
        shim = Shim(Path(library))
    except ShimUnavailable as error:
        print(f"recovery: skipped: {error}")
        return 0
    finally:
        shutil.rmtree(Path(library).parent)  # it is in this process now, and so in those that it forks
    return _Lab(options, shim).run()


def _preloaded(words: list[str], module: str) -> int:
    place = Path(tempfile.mkdtemp(prefix="tradebot-shim-"))
    try:
        library = str(build(place))
    except ShimUnavailable as error:
        shutil.rmtree(place)
        print(f"recovery: skipped: {error}")
        return 0
    environment = {**os.environ, "LD_PRELOAD": library, _LIBRARY: library}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", *module.split(), *words], environment)


def _options(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.recovery.run", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--scenario", type=_some_of(SCENARIOS), help=f"one or more of {', '.join(SCENARIOS)} (default: all)"
    )
    parser.add_argument("--synchronous", type=_some_of(SYNCHRONOUS), help="NORMAL or FULL (default: both)")
    parser.add_argument(
        "--kind", type=_some_of(POINT_KINDS), help=f"one or more of {', '.join(POINT_KINDS)} (default: all)"
    )
    parser.add_argument("--at", type=int, help="run only the operation or call with this number")
    parser.add_argument("--detail", help="run only this error or image")
    parser.add_argument("--few", action="store_true", help="test a few points of each scenario, in less than a minute")
    parser.add_argument("--changes", type=int, help="at most CHANGES kills and power losses for each scenario")
    parser.add_argument("--torn", type=int, help="at most TORN interrupted writes for each scenario")
    parser.add_argument("--images", type=int, help="number of images at each power loss")
    parser.add_argument("--calls", type=int, help="at most CALLS calls for each scenario and error")
    parser.add_argument(
        "--seed", type=int, default=1, help="selects the points, if not all are tested, and the contents of the images"
    )
    parser.add_argument("--jobs", type=int, default=2, help="number of engines that run at once")
    parser.add_argument("--keep", action="store_true", help="keep the files of each failed point")
    return parser.parse_args(words)


def _some_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    def chosen(text: str) -> list[str]:
        names = text.split(",")
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not of {', '.join(known)}")
        return names

    return chosen


class _Task:
    """Points of one scenario under one configuration that are struck by one process."""

    def __init__(self, scenario: str, synchronous: Synchronous, kinds: tuple[PointKind, ...]) -> None:
        self.scenario = SCENARIOS[scenario]
        self.synchronous = synchronous
        self.kinds = kinds
        self.name = f"{scenario} {synchronous} {'+'.join(kinds)}"


class _Lab:
    """Shares the tasks out among processes, and gathers what they found."""

    def __init__(self, options: argparse.Namespace, shim: Shim) -> None:
        self._options = options
        self._shim = shim
        self._home = Path(tempfile.mkdtemp(prefix="tradebot-recovery-", dir=memory()))
        limits = _FEW if options.few else _WHOLE
        given = {name: getattr(options, name) for name in ("changes", "torn", "images", "calls")}
        self._limits = replace(limits, **{name: value for name, value in given.items() if value is not None})
        self._changes = 0
        kinds = [kind for kind in POINT_KINDS if kind in (options.kind or POINT_KINDS)]
        self._tasks = [
            _Task(scenario, synchronous, tuple(group))
            for group in ([kind] for kind in kinds)
            for scenario in options.scenario or SCENARIOS
            for synchronous in options.synchronous or SYNCHRONOUS
        ]

    def run(self) -> int:
        """All of it; the exit code."""
        begun_s = time.monotonic()
        write_inputs(self._home)
        try:
            struck = list(self._shared_out())
        finally:
            if not self._options.keep:
                shutil.rmtree(self._home)
        faults = [one for one in struck if one.fault]
        for one in faults[:_SHOWN]:
            print(f"\n{one.point.command(self._options.seed)}\n  {one.detail}")
        if len(faults) > _SHOWN:
            print(f"\n... and {len(faults) - _SHOWN} more")
        print(f"\n{table(struck)}")
        print(f"\n{len(struck)} points, {len(faults)} faults, {time.monotonic() - begun_s:.0f} s")
        if self._options.keep:
            print(f"what is left is in {self._home}")
        return 1 if faults or not struck else 0

    def _shared_out(self) -> Iterator[Struck]:
        turn, turns = os.pipe()
        os.write(turns, bytes(range(len(self._tasks))))
        os.close(turns)
        workers = {}
        for number in range(min(self._options.jobs, len(self._tasks))):
            child = os.fork()
            if not child:
                os._exit(self._work(number, turn))
            workers[child] = number
        for child, number in workers.items():
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if code:
                raise RuntimeError(f"process {number} of the lab ended with {code}")
            for line in self._found(number).read_text().splitlines():
                fields = json.loads(line)
                yield Struck(Point(**fields.pop("point")), **fields)

    def _found(self, number: int) -> Path:
        return self._home / f"found-{number}.jsonl"

    def _work(self, number: int, turn: int) -> int:
        end_with_parent()
        try:
            with self._found(number).open("w") as found:
                while byte := os.read(turn, 1):
                    task = self._tasks[byte[0]]
                    begun_s, struck = time.monotonic(), list(self._strike(task, self._home / f"work-{number}"))
                    found.writelines(json.dumps(asdict(one)) + "\n" for one in struck)
                    faults = sum(one.fault is not None for one in struck)
                    told = f"{len(struck)} points of {self._changes} changes, {faults} faults"
                    print(f"{task.name}: {told}, {time.monotonic() - begun_s:.0f} s", file=sys.stderr, flush=True)
        except BaseException:
            traceback.print_exc()
            return 1
        return 0

    def _strike(self, task: _Task, work: Path) -> Iterator[Struck]:
        options = self._options
        bench = Bench(task.scenario, Place(self._home, self._shim, task.synchronous), work, options.seed)
        self._changes = bench.changes
        if options.at:
            details = [options.detail or ""] if task.kinds != ("error",) or options.detail else list(ERRORS)
            points = [
                Point(task.scenario.name, task.synchronous, kind, options.at, detail)
                for kind in task.kinds
                for detail in details
            ]
        else:
            points = [
                point for point in bench.points(task.kinds, self._limits) if options.detail in (None, point.detail)
            ]
        for struck in bench.strike(points, self._limits.images):
            if struck.fault and options.keep:
                bench.keep(self._home / struck.point.name)
            yield struck


def table(struck: Sequence[Struck]) -> str:
    """Points and faults, a line for each scenario, configuration and kind of point."""
    counted: dict[tuple[str, str, str], Counter[str]] = {}
    for one in struck:
        row = counted.setdefault((one.point.scenario, one.point.synchronous, one.point.kind), Counter())
        row.update(["points", *([one.fault] if one.fault else [])])
    lines = [
        f"| scenario | synchronous | struck by | points | {' | '.join(FAULTS)} |",
        "|---|---|---" + "|--:" * 8 + "|",
    ]
    for (scenario, synchronous, kind), row in sorted(counted.items(), key=lambda item: _order(*item[0])):
        cells = [scenario, synchronous, kind, *(str(row[column]) for column in ("points", *FAULTS))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _order(scenario: str, synchronous: str, kind: str) -> tuple[int, int, int]:
    return _index(SCENARIOS, scenario), _index(SYNCHRONOUS, synchronous), _index(POINT_KINDS, kind)


def _index(names: Iterable[str], name: str) -> int:
    return list(names).index(name)


if __name__ == "__main__":
    sys.exit(main())
