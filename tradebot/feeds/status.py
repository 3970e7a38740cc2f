"""What a feed says of itself while it runs: its link, its deadlines and its symbols, at one moment."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Link = Literal["up", "down"]


class SymbolsLook(Struct, frozen=True):
    """The symbols at one moment. At most `subscriptions.NAMES_MAX` names of a kind; the counts are of all.

    `confirmed`: whether the exchange has confirmed something on this connection; None for one that confirms nothing.
    `refused` with the exchange's words. `untraded`: no trade for `subscriptions.UNTRADED_S` since the link is up.
    `announced` counts what the exchange announced in this run, the newest in `announcements`, oldest first.
    """

    requested: int = 0
    confirmed: bool | None = None
    refused: dict[str, str] = {}
    refused_count: int = 0
    silent: tuple[str, ...] = ()
    silent_count: int = 0
    untraded: tuple[str, ...] = ()
    untraded_count: int = 0
    announced: int = 0
    announcements: tuple[str, ...] = ()


class FeedStatus(Struct, frozen=True):
    """One look at a feed. The defaults are those of a feed that has no link: a replay, the synthetic one.

    `frames`: received so far. `last_frame_age_ms`: since the newest frame; None before the first connection.
    `overdue_ms`: for how long the link has shown neither life nor a loss nor a new attempt though one was due; 0 as
    long as the feed's thread works, whatever the peer does. `retry_after_s`: how much is left of the pause that the
    server asked for; None when it asked for none.
    """

    link: Link | None = None
    frames: int = 0
    last_frame_age_ms: int | None = None
    overdue_ms: int | None = None
    retry_after_s: float | None = None
    symbols: SymbolsLook | None = None

    def log_fields(self) -> dict[str, object]:
        """Flat fields for a log line, with counts in place of names; empty without a link."""
        if self.link is None:
            return {}
        fields: dict[str, object] = {
            "link": self.link,
            "frames": self.frames,
            "last_frame_age_ms": self.last_frame_age_ms,
            "overdue_ms": self.overdue_ms,
            "retry_after_s": self.retry_after_s,
        }
        if (symbols := self.symbols) is not None:
            counts = {
                "refused": symbols.refused_count,
                "silent": symbols.silent_count,
                "untraded": symbols.untraded_count,
            }
            fields |= {f"symbols_{kind}": count for kind, count in counts.items() if count}
        return fields


NO_LINK = FeedStatus()
"""The status of a feed that reads no network."""
