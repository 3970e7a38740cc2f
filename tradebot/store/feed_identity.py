"""Which feed a run belongs to: exchange and market, never the list of symbols or an address. Pure.

Positions, windows and sequence state belong to mode, ingest, this name and the symbol. A symbol more or another address
of the same market forgets nothing; another market of the same exchange shares nothing.
"""

from __future__ import annotations


def feed_name(exchange: str, market: str = "") -> str:
    """The name of a feed; `market` is empty for the market that an exchange's plain symbols mean."""
    return f"{exchange}:{market}" if market else exchange


def synthetic_name(symbol: str) -> str:
    """The name of a synthetic feed, which has no exchange: each symbol is a separate walk."""
    return f"synthetic:{symbol}"


def feed_of_source(ingest: str, source: str) -> str:
    """The name of the feed that a run of schema 3 listened to, from its `runs.source`.

    That said exchange and symbols, or the address of a mockws; the market was not recorded.
    """
    return source if ingest == "synthetic" else feed_name(source.partition(":")[0])


def takes_over(name: str, ingest: str, source: str) -> bool:
    """Whether the feed `name` may continue a run of schema 3 that no feed has taken over yet.

    The first feed of an exchange that starts does, whatever its market: which one such a run listened to is not known.
    """
    older = feed_of_source(ingest, source)
    return older == (name if ingest == "synthetic" else name.partition(":")[0])
