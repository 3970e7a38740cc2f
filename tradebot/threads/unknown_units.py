"""The warning that the currency of a symbol is not known: once for each symbol that is traded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tradebot.core.log_events import LogEvent
from tradebot.output.log import Log
from tradebot.portfolio.instruments import Instruments

_SYMBOLS_WARNED_OF: Final = 20
"""Only the first symbols that are traded are named: a log has a bound."""


class UnknownUnits:
    """Warns of the symbols it is shown. One thread."""

    def __init__(self, instruments: Instruments, log: Log) -> None:
        self._instruments = instruments
        self._log = log
        self._seen: set[str] = set()

    def look(self, symbols: Iterable[str]) -> None:
        """Warn of those of `symbols` that are new and whose currency is not known."""
        for symbol in symbols:
            if symbol not in self._seen:
                self._look_at(symbol)

    def _look_at(self, symbol: str) -> None:
        self._seen.add(symbol)
        if self._instruments.currency_of(symbol) is None and len(self._seen) <= _SYMBOLS_WARNED_OF:
            self._log.warning(
                "the currency of a symbol's prices is not known: its amounts count as US dollars in the risk caps",
                event=LogEvent.UNIT_UNKNOWN, symbol=symbol,
                hint=f'set instruments."{symbol}".quote; symbols such as BTC/USDT, BTC-USDT or BTC_USDT name it',
            )  # fmt: skip
