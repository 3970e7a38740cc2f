"""Which feed a run belongs to: exchange and market, never the list of symbols or an address. Pure.

Positions, windows and sequence state belong to mode, ingest, this name and the symbol. A symbol more or another address
of the same market forgets nothing; another market of the same exchange shares nothing.
"""

from __future__ import annotations


def feed_name(exchange: str, market: str = "") -> str:
    """The name of a feed; `market` is empty for the market that an exchange's plain symbols mean."""
    return f"{exchange}:{market}" if market else exchange


def synthetic_name(symbol: str) -> str:
    """The synthetic feed has no exchange: each symbol is a walk of its own."""
    return f"synthetic:{symbol}"


def feed_of_source(ingest: str, source: str) -> str:
    """The name of the feed that a run of schema 3 listened to, from its `runs.source`.

    That said exchange and symbols, or the address of a mockws. The market was not recorded: it counts as the default.
    """
    return source if ingest == "synthetic" else feed_name(source.partition(":")[0])
