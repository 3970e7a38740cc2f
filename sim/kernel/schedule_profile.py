"""The character of a history: its schedule, and where threads may lose the baton."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, Literal

from sim.kernel.schedules import Dice, Priorities, Schedule, Shares, Starve, Uniform

ScheduleKind = Literal["uniform", "shares", "priorities", "starve"]
SwitchGrain = Literal["calls", "seam", "statements"]
"""Where threads may lose the baton: in blocking calls, at every use of the seam as well, or at statements too."""

# Drawn with equal chance. Half of all histories switch in blocking calls only: they are fast, and easiest to read.
_KINDS: Final[tuple[ScheduleKind, ...]] = ("uniform",) * 3 + ("shares",) * 2 + ("priorities",) * 2 + ("starve",)
_GRAINS: Final[tuple[SwitchGrain, ...]] = ("calls",) * 4 + ("seam",) * 2 + ("statements",) * 2
_SWITCH_CHANCES: Final = (0.02, 0.1, 0.3, 0.6)
_SPURIOUS_CHANCES: Final = (0.0, 0.0, 0.02, 0.1)
_INTERRUPT_CHANCES: Final = (0.01, 0.03, 0.1, 0.3)


@dataclass(frozen=True)
class ScheduleProfile:
    """The parts of a schedule that are drawn, or fixed by the creator of a runtime."""

    kind: ScheduleKind
    grain: SwitchGrain
    switch_chance: float
    """Probability that a thread which could continue hands over the baton; `priorities` does not use it."""
    spurious_chance: float
    """Probability that a wait on a condition ends immediately."""
    interrupt_chance: float
    """Probability that a use of the seam, or a statement, becomes a step."""
    changes: int
    """For `priorities`: how often within `horizon` steps the running thread gets the lowest priority."""
    horizon: int
    victim: int
    """For `starve`: the number of the starved thread, in the order of their start."""
    patience: int
    """For `starve`: the number of steps for which the thread may be passed over although it could run."""

    @staticmethod
    def drawn(dice: random.Random) -> ScheduleProfile:
        """Draw a profile from a separate stream; every profile takes the same number of draws."""
        switch_chance = _SWITCH_CHANCES[dice.getrandbits(2)]
        spurious_chance = _SPURIOUS_CHANCES[dice.getrandbits(2)]
        return ScheduleProfile(
            switch_chance=switch_chance,
            spurious_chance=spurious_chance,
            kind=_KINDS[dice.getrandbits(3)],
            grain=_GRAINS[dice.getrandbits(3)],
            interrupt_chance=_INTERRUPT_CHANCES[dice.getrandbits(2)],
            changes=1 + dice.getrandbits(2),
            horizon=16 << dice.getrandbits(3),
            victim=dice.getrandbits(3) % 7,
            patience=64 << dice.getrandbits(3),
        )

    def schedule(self, dice: Dice) -> Schedule:
        """A new schedule of this kind."""
        match self.kind:
            case "uniform":
                return Uniform(dice, self.switch_chance)
            case "shares":
                return Shares(dice, self.switch_chance)
            case "priorities":
                return Priorities(dice, self.changes, self.horizon)
            case "starve":
                return Starve(dice, self.switch_chance, self.victim, self.patience)

    def describe(self, schedule: Schedule) -> str:
        """One line for the trace."""
        often = "" if self.grain == "calls" else f" interrupt={self.interrupt_chance}"
        return f"{schedule} spurious={self.spurious_chance} grain={self.grain}{often}"
