"""Exchanges whose public trades can be listened to: one pure file each, registered here by one line.

An adapter turns symbols into subscription messages and the text of a frame into ticks. To add an exchange, write
`tradebot/feeds/exchanges/NAME.py` with a subclass of `base.Exchange` and add its name below.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Final

from tradebot.feeds.exchanges.base import Exchange

NAMES: Final = (
    "binance",
    "bitfinex",
    "bitget",
    "bitstamp",
    "bybit",
    "coinbase",
    "crypto_com",
    "gateio",
    "gemini",
    "kraken",
    "kraken_futures",
    "kucoin",
    "mockws",
    "okx",
)


class _Exchanges(Mapping[str, type[Exchange]]):
    """Imports an adapter when it is asked for: a run needs one of them."""

    def __getitem__(self, name: str) -> type[Exchange]:
        if name not in NAMES:
            raise KeyError(name)
        module = import_module(f"{__name__}.{name}")
        (adapter,) = (
            found
            for found in vars(module).values()
            if isinstance(found, type) and issubclass(found, Exchange) and vars(found).get("name") == name
        )
        return adapter

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)


EXCHANGES: Final[Mapping[str, type[Exchange]]] = _Exchanges()
"""Adapters by the name that `--exchange` and ws_sources.toml use."""
