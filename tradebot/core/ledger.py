"""The ledger: where every trade that arrived has gone. Pure; checked at every exit."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import asdict


class NotStored(StrEnum):
    """The only reasons for which an accepted tick may be missing from the database."""

    BY_DESIGN = "this run stores nothing by design"
    STORAGE_FAILED = "the storage failed"
    DRAIN_TIMEOUT = "the drain ran out of time"
    CRASHED = "the engine crashed"
    SECOND_SIGNAL = "a second stop signal ended the run"


class Ledger(Struct, frozen=True, kw_only=True):
    """One run's account, in trades (and one for each malformed line or frame).

    received = malformed + duplicates + history_dropped + out_of_band + sampled_out + already_stored + refused
    + accepted,
    and accepted = stored + not_stored, where not_stored > 0 needs a `cause`. `spilled` of these lie in the spill
    file, and the next start stores them.
    """

    received: int = 0
    malformed: int = 0
    duplicates: int = 0
    history_dropped: int = 0
    out_of_band: int = 0
    sampled_out: int = 0
    already_stored: int = 0
    refused: int = 0
    accepted: int = 0
    stored: int = 0
    not_stored: int = 0
    spilled: int = 0
    cause: NotStored | None = None

    def problems(self) -> list[str]:
        """What does not balance, a sentence each; empty when the ledger balances."""
        found = [
            f"{name} is negative: {value}"
            for name, value in asdict(self).items()
            if isinstance(value, int) and value < 0
        ]
        explained = (
            self.malformed
            + self.duplicates
            + self.history_dropped
            + self.out_of_band
            + self.sampled_out
            + self.already_stored
            + self.refused
            + self.accepted
        )
        if self.received != explained:
            found.append(
                f"received {self.received}, but malformed {self.malformed} + duplicates {self.duplicates}"
                f" + history_dropped {self.history_dropped} + out_of_band {self.out_of_band}"
                f" + sampled_out {self.sampled_out}"
                f" + already_stored {self.already_stored} + refused {self.refused}"
                f" + accepted {self.accepted} = {explained}: {_difference(self.received - explained)}"
            )
        kept = self.stored + self.not_stored
        if self.accepted != kept:
            found.append(
                f"accepted {self.accepted}, but stored {self.stored} + not_stored {self.not_stored} = {kept}:"
                f" {_difference(self.accepted - kept)}"
            )
        if self.spilled > self.not_stored:
            found.append(f"spilled {self.spilled}, but only {self.not_stored} were not stored")
        if self.not_stored > 0 and self.cause is None:
            found.append(f"{self.not_stored} accepted but not stored, and no cause is named")
        return found

    def as_dict(self) -> dict[str, int | str | None]:
        """The fields by name, the cause as text or None: for the log and for the `runs` table."""
        return {**asdict(self), "cause": None if self.cause is None else str(self.cause)}


def _difference(count: int) -> str:
    return f"{count} unaccounted for" if count > 0 else f"{-count} too many"
