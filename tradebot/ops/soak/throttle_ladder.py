"""The throttle ladder: how many ticks the engine is to keep under pressure. Pure.

Climbing is quick and coming down slow, so that an engine whose own load makes the pressure does not swing between two
rungs: one poll over the threshold climbs, only a minute of calm at half of it comes down.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

OVER: Final = 20.0
"""PSI cpu some avg10 above which a poll counts as over."""
CALM_BELOW: Final = OVER / 2
CALM_POLLS: Final = 12
"""So many polls in a row below CALM_BELOW, and it goes one rung down."""
ABORT_POLLS: Final = 3
"""So many polls over at the last rung, and the soak is given up. In between it may dip, but must not come down."""


class Rung(NamedTuple):
    """A state of the ladder, and that every how manieth tick is kept in it."""

    state: str
    sample_every: int


RUNGS: Final = (Rung("NORMAL", 1), Rung("THROTTLE1", 5), Rung("THROTTLE2", 10), Rung("THROTTLE3", 20))


class Step(NamedTuple):
    """The result of one poll: a step or none, and the reason, for people."""

    move: Literal["up", "down", "abort"] | None
    reason: str


class Ladder:
    """Call `look` once a poll."""

    def __init__(self, rung: Rung = RUNGS[0]) -> None:
        """Begins at `rung`, one of RUNGS."""
        self._at = RUNGS.index(rung)
        self._over_at_last = 0
        self._calm = 0

    @property
    def rung(self) -> Rung:
        """Where it stands."""
        return RUNGS[self._at]

    def look(self, cpu_some_avg10: float | None) -> Step:
        """One poll; None is neither over nor calm."""
        if cpu_some_avg10 is None:
            self._calm = 0
            return Step(None, f"No CPU pressure reading (PSI): the ladder stays at {self.rung.state}")
        if cpu_some_avg10 > OVER:
            self._calm = 0
            return self._over(cpu_some_avg10)
        if cpu_some_avg10 < CALM_BELOW:
            return self._calmer(cpu_some_avg10)
        self._calm = 0
        return Step(None, f"Holding {self.rung.state}: CPU {cpu_some_avg10}")

    def _over(self, value: float) -> Step:
        if self._at < len(RUNGS) - 1:
            self._at += 1
            return Step("up", f"Throttling up to {self.rung.state} due to PSI: CPU {value}")
        self._over_at_last += 1
        if self._over_at_last == ABORT_POLLS:
            return Step(
                "abort", f"PSI over {OVER} at {self.rung.state} for {ABORT_POLLS} polls: CPU {value};"
                " the engine stays throttled",
            )  # fmt: skip
        return Step(
            None, f"PSI over {OVER} at {self.rung.state}, poll {self._over_at_last} of {ABORT_POLLS}: CPU {value}"
        )

    def _calmer(self, value: float) -> Step:
        if self._at == 0:
            return Step(None, f"Calm: CPU {value}")
        self._calm += 1
        if self._calm < CALM_POLLS:
            return Step(None, f"Calm at {self.rung.state}, poll {self._calm} of {CALM_POLLS}: CPU {value}")
        self._at -= 1
        self._calm = self._over_at_last = 0
        return Step(
            "down", f"Throttling down to {self.rung.state}: PSI under {CALM_BELOW} for {CALM_POLLS} polls: CPU {value}"
        )


def rung_of(sample_every: int) -> Rung:
    """The lowest rung that keeps at most one of `sample_every` ticks; the last rung if none does."""
    return next((rung for rung in RUNGS if rung.sample_every >= sample_every), RUNGS[-1])
