"""make bench-live: the live path from bin/mockws through a WebSocket into the database, compared with websocket-client.

Usage:
  bench.live [--seconds=N] [--frames=N] [--rounds=N]

Options:
  --seconds=N  The duration of the test of the highest rate and of each latency measurement [default: 60].
  --frames=N   The number of frames in a flood [default: 200000].
  --rounds=N   Measure each flood N times, in turns, and use the medians [default: 3].
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from docopt import docopt

from bench import engine, live_run, measure
from bench.replay import machine, whole_number
from tradebot.output.streams import run_tool

STRATEGY: Final = '[strategy]\nname = "periodic"\ndesired_size = 0.0001\n'
"""All other settings are the defaults: channels of 256, 64 and 512 events, batches of 100 events or 1 s, NORMAL."""

NO_BATCH: Final = f"{STRATEGY}[persist]\nbatch_size = 1\n"
ROOMY: Final = f"{STRATEGY}[channels]\ntick_channel_size = 1048576\nsignal_channel_size = 1048576\n"

FLOOD: Final = 'description = "as fast as it is read"\n[[step]]\ndo = "burst"\ncount = {}\nseconds = 0\n'
RATES: Final = (1000, 5000)
AGE_S_MAX: Final = 1.0
"""An engine that keeps up stores a batch long before this; one that is even slightly too slow finally reaches it."""

TRY_S: Final = 5.0
STEP: Final = 0.05
LESS: Final = 0.85
ATTEMPTS_MAX: Final = 12
"""The number of attempts; after a rate that does not hold for the whole time, the next one is LESS times as high."""

PARTS: Final = ("sent to read", "decided", "in batch", "written")


@dataclass
class Flood:
    """The results of all rounds for one reader of the flood."""

    label: str
    per_s: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)

    def add(self, frames: float, seconds: float, cpu_s: float) -> None:
        """One round."""
        self.per_s.append(frames / seconds)
        self.cpu_us.append(cpu_s / frames * 1e6)

    def line(self, base: Flood) -> str:
        """A line of the table, with its speed relative to `base`, round by round."""
        spread = f"{measure.count(min(self.per_s))}-{measure.count(max(self.per_s))}"
        times = measure.median([mine / other for mine, other in zip(self.per_s, base.per_s, strict=True)])
        cpu_times = measure.median([other / mine for mine, other in zip(self.cpu_us, base.cpu_us, strict=True)])
        return (
            f"{self.label:<44}{measure.count(measure.median(self.per_s)):>10}  {spread:>17}"
            f"{measure.median(self.cpu_us):12.1f}{times:8.2f}{cpu_times:12.2f}"
        )


FLOOD_HEADING = (
    f"{'frames as fast as mockws gives them':<44}{'frames/s':>10}  {'least-most':>17}{'cpu us each':>12}"
    f"{'times':>8}{'times (cpu)':>12}"
)


class Bench:
    """The measurements, in a scratch directory."""

    def __init__(self, scratch: Path, seconds: int, frames: int, rounds: int) -> None:
        self.scratch = scratch
        self.seconds = seconds
        self.frames = frames
        self.rounds = rounds
        self.bare = Flood("(e) websocket-client's bare receive loop")
        self.receive = Flood("(f) tradebot's receive() alone")
        self.whole = Flood("(g) the whole engine, everything stored")
        self.scenario = scratch / "flood.toml"
        self.scenario.write_text(FLOOD.format(frames))

    # ---- floods -------------------------------------------------------------------------------------------------

    def floods(self) -> str:
        """Measure the floods and return their table."""
        for number in range(self.rounds):
            for reader, flood in (("websocket-client", self.bare), ("tradebot", self.receive)):
                measure.progress(f"flood {number + 1} of {self.rounds}: {flood.label}")
                self.flood_reader(reader, flood)
            measure.progress(f"flood {number + 1} of {self.rounds}: {self.whole.label}")
            self.flood_engine()
        measure.progress("")
        lines = [flood.line(self.bare) for flood in (self.bare, self.receive, self.whole)]
        return "\n".join([FLOOD_HEADING, *lines])

    def flood_reader(self, reader: str, flood: Flood) -> None:
        """(e) and (f): a process that only receives."""
        with live_run.MockWs(self.scratch, f"--scenario={self.scenario}") as mock:
            command = engine.python("bench.receive", reader, mock.url, self.frames)
            answer = json.loads(measure.run(command, self.scratch, engine.REPO).stdout)
        flood.add(answer["frames"], answer["seconds"], answer["cpu_s"])

    def flood_engine(self) -> None:
        """(g): from the first transaction to the last; the tick channel is too large to overflow."""
        with (
            live_run.MockWs(self.scratch, f"--scenario={self.scenario}") as mock,
            live_run.Engine(self.scratch, mock.url, "writes", ROOMY) as process,
        ):
            live_run.wait_client(mock, process)
            process.wait_stored(self.frames)
            code, stored = process.stop(), process.stored()
        if code or stored != self.frames:
            raise measure.BenchError(f"a flood of {self.frames} ticks ended with {code} and {stored} ticks stored")
        stamps = process.stamps()
        self.whole.add(stored, (stamps["last_ns"] - stamps["first_ns"]) / 1e9, sum(process.busy().values()))

    # ---- the highest rate ---------------------------------------------------------------------------------------

    def sustained(self) -> str:
        """Search for the highest rate that the engine sustains for `seconds`."""
        flat_out = measure.median(self.whole.per_s)
        low, high, failures = 0.0, flat_out, []
        while high - low > STEP * flat_out:
            rate = (low + high) / 2
            outcome = self.paced(rate, min(TRY_S, self.seconds))
            if outcome.why:
                high = rate
                failures.append(f"{measure.count(rate)}: {outcome.why}")
            else:
                low = rate
        rate = low or high
        for _ in range(ATTEMPTS_MAX):
            outcome = self.paced(rate, self.seconds)
            if not outcome.why:
                return self.sustained_text(outcome, flat_out, failures)
            failures.append(f"{measure.count(rate)} for {self.seconds} s: {outcome.why}")
            rate *= LESS
        return "\n".join(["(h) no rate held:", *(f"    {failure}" for failure in failures)])

    def paced(self, rate: float, seconds: float) -> live_run.Outcome:
        """One run, with default sizes."""
        return live_run.paced(self.scratch, max(1, round(rate)), seconds, "writes", STRATEGY, AGE_S_MAX)

    def sustained_text(self, outcome: live_run.Outcome, flat_out: float, failures: Sequence[str]) -> str:
        """The description of the rate that held."""
        per_s = outcome.sent / outcome.seconds
        lines = [
            f"(h) {measure.count(per_s)} ticks/s for {self.seconds} s, default sizes ({per_s / flat_out:.2f} of g)",
            f"    all {measure.count(outcome.stored)} ticks stored, exit 0; the oldest was {outcome.age_ms_max:.0f} ms"
            " old when stored",
            f"    processor us a tick: {busy_text(outcome)}",
        ]
        lines += [f"    did not hold: {failure}" for failure in failures]
        return "\n".join(lines)

    # ---- latency ------------------------------------------------------------------------------------------------

    def latencies(self) -> str:
        """Measure each rate with the defaults, and with every event stored immediately."""
        heading = f"{'tick sent to order stored, ms':<36}{'orders':>8}{'p50':>9}{'p99':>9}{'p99.9':>9}{'most':>9}"
        lines = [heading + "   p50 of the parts: " + ", ".join(PARTS)]
        for rate in RATES:
            for label, config in (("defaults", STRATEGY), ("batch_size = 1", NO_BATCH)):
                name = f"{measure.count(rate)} ticks/s, {label}"
                outcome = live_run.paced(self.scratch, rate, self.seconds, "orders", config, AGE_S_MAX)
                lines.append(f"{name:<36}{latency_text(outcome)}")
        lines.append("in batch: until 100 events are there, or for 1 s; a tick makes 1.2 events here")
        return "\n".join(lines)


def busy_text(outcome: live_run.Outcome) -> str:
    """Processor time per tick of each stage, in microseconds."""
    return ", ".join(f"{stage} {seconds / outcome.stored * 1e6:.1f}" for stage, seconds in outcome.busy.items())


def latency_text(outcome: live_run.Outcome) -> str:
    """A line of the latency table, without its name."""
    orders: list[list[int]] = outcome.stamps["orders"]
    if not orders:
        return f"no order was stored ({outcome.why})"
    whole = [(order[-1] - order[0]) / 1e6 for order in orders]
    parts = [[(order[n + 1] - order[n]) / 1e6 for order in orders] for n in range(len(PARTS))]
    shares = " ".join(f"{percentile(part, 50):8.2f}" for part in parts)
    held = f"   {outcome.why}" if outcome.why else ""
    wanted = "".join(f"{percentile(whole, share):9.2f}" for share in (50, 99, 99.9, 100))
    return f"{len(orders):>8}{wanted}   {shares}{held}"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value such that at least `share` percent of the values are not larger."""
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * share // 100) - 1)]


def options(arguments: dict[str, Any]) -> tuple[int, int, int]:
    """Seconds, frames and rounds; exits with a message if one is not valid."""
    seconds, frames, rounds = (whole_number(arguments, name) for name in ("--seconds", "--frames", "--rounds"))
    return seconds, frames, rounds


def main() -> None:
    """Measure, and print each part as soon as it is complete."""
    seconds, frames, rounds = options(docopt(__doc__ or ""))
    print(f"live path from bin/mockws\n{machine()}\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="tradebot-bench-") as scratch:
        bench = Bench(Path(scratch), seconds, frames, rounds)
        try:
            for part in (bench.floods, bench.sustained, bench.latencies):
                print(f"{part()}\n", flush=True)
        except measure.BenchError as error:
            sys.exit(f"bench: {error}")


if __name__ == "__main__":
    run_tool(main)
