"""Striking: each point runs what is disturbed, then the start after it, and has both judged."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.process import Finished, dump
from tests.recovery.children import SPILLED, Orders, run
from tests.recovery.disk import Disk, Operation, read_record
from tests.recovery.judge import Fault, Judge, Rows, most, read_image, rows_of, spilled_rows, write_image
from tests.recovery.points import ERRORS, Point, PointKind, spread
from tests.recovery.scenarios import DB, Place, Scenario
from tests.recovery.shim import COUNTED, Control, Mode, new_control
from tradebot.config.model import Synchronous
from tradebot.core.log_events import LogEvent


@dataclass(frozen=True)
class Struck:
    """What came of a point; `fault` is None when all was as it must be."""

    point: Point
    fault: str | None = None
    detail: str = ""


@dataclass(frozen=True)
class Limits:
    """How many points at most of a scenario: changes to be killed at and to cut the power at, writes to be torn, images
    at each cut, calls for each error."""

    changes: int
    torn: int
    images: int
    calls: int


class Bench:
    """One scenario under one configuration: its beginning is made once, its points are struck one after another."""

    def __init__(self, scenario: Scenario, place: Place, work: Path, seed: int) -> None:
        """`work` is a directory of its own, emptied. Runs the scenario undisturbed to learn what it does."""
        self.scenario = scenario
        self._place = place
        self._seed = seed
        self._home = work / "home"
        self._work = work
        shutil.rmtree(work, ignore_errors=True)
        self._home.mkdir(parents=True)
        scenario.begin(place, self._home)
        self._begin = read_image(self._home)
        self._required = most(rows_of(self._begin), spilled_rows(self._begin))
        control = new_control()
        control.mode = Mode.RECORD
        self._recorded = self._victim(control, work / "record").expect(scenario.code)
        assert not control.record_error, f"the record is not whole: errno {control.record_error}"
        self._operations = read_record(work / "record")
        self.changes = int(control.changes)
        self.calls = list(control.kinds)
        undisturbed = None
        if scenario.replay:
            run(self._home, scenario.again(place)).expect(0)
            undisturbed = dump(self._home / DB)
        self._judge = Judge(scenario, place, undisturbed)

    def points(self, kinds: Iterable[PointKind], limits: Limits) -> Iterator[Point]:
        """The points of this scenario; a power cut gives several images, which are chosen when its turn comes."""
        name, synchronous = self.scenario.name, self._place.synchronous
        for kind in kinds:
            chance = random.Random(f"{self._seed} {name} {synchronous} {kind}")
            if kind == "power":
                for at in self._cuts(limits.changes, chance):
                    yield Point(name, synchronous, kind, at)
            elif kind == "kill":
                for at in spread(self.changes, limits.changes, chance):
                    yield Point(name, synchronous, kind, at)
            elif kind == "torn":
                writes = [operation.number for operation in self._operations if operation.code == "W"]
                for n in spread(len(writes), limits.torn, chance):
                    yield Point(name, synchronous, kind, writes[n - 1])
            else:
                for error in ERRORS.values():
                    # No call is of two of these kinds.
                    total = sum(self.calls[bit] for bit in range(len(self.calls)) if error.kinds & 1 << bit)
                    for at in spread(total, limits.calls, chance):
                        yield Point(name, synchronous, kind, at, error.name)

    def _cuts(self, limit: int, chance: random.Random) -> list[int]:
        """Changes before which to cut the power: most of them where something else than writing goes on."""
        changes = [operation for operation in self._operations if operation.changes]
        turns = {1, self.changes}
        for earlier, later in itertools.pairwise(changes):
            if earlier.code != "W" or later.code != "W":
                turns.add(later.number)
        others = [number for number in range(1, self.changes + 1) if number not in turns]
        some = [sorted(turns)[n - 1] for n in spread(len(turns), max(limit * 3 // 4, limit - len(others)), chance)]
        return sorted([*some, *(others[n - 1] for n in spread(len(others), limit - len(some), chance))])

    def strike(self, points: Iterable[Point], images: int) -> Iterator[Struck]:
        """Strike at each point, in order."""
        cuts = []
        for point in points:
            if point.kind == "power":
                cuts.append(point)
            else:
                yield self._struck(point)
        if cuts:
            yield from self._cut_power(cuts, images)

    def _victim(self, control: Control, record: Path | None = None) -> Finished:
        write_image(self._begin, self._home)
        orders = Orders(self._place.shim, control, record)
        return run(self._home, self.scenario.args(self._place), orders, self.scenario.lock)

    def _struck(self, point: Point) -> Struck:
        control = new_control()
        control.at = point.at
        if point.kind == "error":
            error = ERRORS[point.detail]
            control.mode, control.mask = Mode.FAIL, error.kinds
            control.error, control.lasting = error.errno, error.lasting
        else:
            control.mode, control.torn = Mode.KILL, point.kind == "torn"
        done = self._victim(control)
        required = most(self._required, spilled_rows(read_image(self._home)))
        required = most(required, _committed(done, control))
        try:
            self._judge.victim(done, killed=point.kind != "error")
        except Fault as fault:
            return Struck(point, fault.kind, str(fault))
        return self._restart(point, required, done)

    def _restart(self, point: Point, required: Rows, victim: Finished | None) -> Struck:
        again = run(self._home, self.scenario.again(self._place))
        try:
            self._judge.again(again)
            self._judge.stored(self._home / DB, required, victim)
        except Fault as fault:
            return Struck(point, fault.kind, str(fault))
        return Struck(point)

    def _cut_power(self, points: list[Point], images: int) -> Iterator[Struck]:
        """Cut the power of the recorded run at each point, and bring back some of the images that this may leave."""
        wanted: dict[int, list[Point]] = {}
        for point in points:
            wanted.setdefault(point.at, []).append(point)
        disk = Disk(str(self._home.resolve()), self._begin)
        ledger = _Promises(self._place.synchronous, self._required, self._recorded)
        seen: set[int] = set()
        for operation in self._operations:
            if operation.changes:
                for point in wanted.get(operation.number, ()):
                    yield from self._images(point, disk, ledger.rows, images, seen)
            disk.apply(operation)
            ledger.after(operation, disk)

    def _images(self, point: Point, disk: Disk, required: Rows, images: int, seen: set[int]) -> Iterator[Struck]:
        chance = random.Random(f"{self._seed} {point.at}")
        found = list(disk.images(chance))
        if point.detail:
            chosen = [one for one in found if one[0] == point.detail]
        else:
            # Which ones, goes round; one is always drawn from all that are possible.
            chosen = [found[(point.at + n * len(found) // images) % len(found)] for n in range(images)]
        for name, image in chosen:
            digest = hash(tuple(sorted(image.items())))
            if digest in seen and not point.detail:
                continue
            seen.add(digest)
            write_image(image, self._home)
            struck = Point(point.scenario, point.synchronous, "power", point.at, name)
            yield self._restart(struck, required, None)

    def keep(self, into: Path) -> None:
        """Copy what the last point left, with both logs."""
        shutil.copytree(self._work, into)


class _Promises:
    """What docs/storage.md promises after a loss of power, as a recorded run goes on.

    Under NORMAL what was committed when the log was last synced, under FULL every commit that the writer was told of;
    and what a spill file held when it was last synced or the writer was told that it is safe.
    """

    def __init__(self, synchronous: Synchronous, rows: Rows, victim: Finished) -> None:
        self.rows = rows
        self._synchronous = synchronous
        self._run = str(victim.one(LogEvent.START)["run_id"])
        self._syncs = 0

    def after(self, operation: Operation, disk: Disk) -> None:
        """The operation has happened on the disk."""
        if operation.code == "M" and operation.path == SPILLED:
            self.rows = most(self.rows, spilled_rows(disk.latest))
        elif operation.code == "M":
            if self._synchronous == "FULL":
                self.rows = most(self.rows, {self._run: _counts(operation.path)})
        elif disk.syncs != self._syncs:
            self._syncs = disk.syncs
            self.rows = most(most(self.rows, rows_of(disk.safe)), spilled_rows(disk.synced))


def _counts(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.strip("[]").split(","))


def _committed(done: Finished, control: Control) -> Rows:
    start = done.all(LogEvent.START)
    rows = tuple(int(control.committed[index]) for index in range(len(COUNTED)))
    return {start[0]["run_id"]: rows} if start and any(rows) else {}
