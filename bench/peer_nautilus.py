"""NautilusTrader's BacktestEngine on the same ticks, strategy and orders: `python peer_nautilus.py TICKS.jsonl`.

Runs as a script in the environment of the peers and imports nothing from tradebot. Only `engine.run()` is timed, not
reading the file, creating the ticks or adding them to the engine. Everything that the comparison does not need is
turned off: logging, risk checks, the final analysis, account calculations, storage. The strategy keeps running sums of
whole cents, which are exact and here faster than the engine's SimpleMovingAverage (`--indicator` measures that one).
"""

from __future__ import annotations

import json
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import nautilus_trader
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.config import LoggingConfig, RiskEngineConfig, StrategyConfig
from nautilus_trader.indicators import SimpleMovingAverage
from nautilus_trader.model.currencies import BTC, USDT
from nautilus_trader.model.data import TradeTick
from nautilus_trader.model.enums import AccountType, AggressorSide, OmsType, OrderSide
from nautilus_trader.model.identifiers import InstrumentId, Symbol, TradeId, Venue
from nautilus_trader.model.instruments import CurrencyPair
from nautilus_trader.model.objects import Money, Price, Quantity
from nautilus_trader.trading.strategy import Strategy

SHORT, LONG = 5, 20
ORDER_SIZE = "0.00010"
VENUE = Venue("BENCH")
INSTRUMENT = CurrencyPair(
    instrument_id=InstrumentId(Symbol("BTCUSDT"), VENUE),
    raw_symbol=Symbol("BTCUSDT"),
    base_currency=BTC,
    quote_currency=USDT,
    price_precision=2,
    size_precision=5,
    price_increment=Price.from_str("0.01"),
    size_increment=Quantity.from_str("0.00001"),
    lot_size=None,
    max_quantity=None,
    min_quantity=None,
    max_notional=None,
    min_notional=None,
    max_price=None,
    min_price=None,
    margin_init=Decimal(0),
    margin_maint=Decimal(0),
    maker_fee=Decimal("0.001"),
    taker_fee=Decimal("0.001"),
    ts_event=0,
    ts_init=0,
)


class Crossover(Strategy):  # type: ignore[misc]  # the library is untyped
    """Common base of both strategies: subscribes, and sends a market order for each signal."""

    def __init__(self) -> None:
        super().__init__(StrategyConfig())
        self.signals = 0
        self.size = Quantity.from_str(ORDER_SIZE)
        self.prev: float | None = None

    def on_start(self) -> None:
        """Subscribe to the trades."""
        self.subscribe_trade_ticks(INSTRUMENT.id)

    def decide(self, diff: float) -> None:
        """Decide like tradebot's sma_crossover: the first full window only sets prev."""
        prev, self.prev = self.prev, diff
        if prev is None:
            return
        if prev <= 0 and diff > 0:
            self.order(OrderSide.BUY)
        elif prev >= 0 and diff < 0:
            self.order(OrderSide.SELL)

    def order(self, side: Any) -> None:
        """Send a market order."""
        self.signals += 1
        self.submit_order(self.order_factory.market(INSTRUMENT.id, side, self.size))


class RunningSums(Crossover):
    """Running sums of whole cents over a ring buffer of the last prices."""

    def __init__(self) -> None:
        super().__init__()
        self.ring = [0] * LONG
        self.seen = 0
        self.short_sum = self.long_sum = 0

    def on_trade_tick(self, tick: Any) -> None:
        """One tick: move the windows, compare the averages."""
        cents = round(float(tick.price) * 100)
        ring, at = self.ring, self.seen % LONG
        self.long_sum += cents - ring[at]
        self.short_sum += cents - ring[at - SHORT]
        ring[at] = cents
        self.seen += 1
        if self.seen >= LONG:
            self.decide(self.short_sum * (LONG // SHORT) - self.long_sum)


class Indicators(Crossover):
    """Uses the engine's moving averages: where the averages are equal, rounding adds or removes signals."""

    def on_start(self) -> None:
        """Register the averages."""
        self.short = SimpleMovingAverage(SHORT)
        self.long = SimpleMovingAverage(LONG)
        self.register_indicator_for_trade_ticks(INSTRUMENT.id, self.short)
        self.register_indicator_for_trade_ticks(INSTRUMENT.id, self.long)
        super().on_start()

    def on_trade_tick(self, tick: Any) -> None:
        """One tick: compare the averages."""
        if self.long.initialized:
            self.decide(self.short.value - self.long.value)


def read_ticks(path: Path) -> list[Any]:
    """The ticks of the file as objects of the engine."""
    ticks = []
    with path.open() as file:
        for number, line in enumerate(file):
            row = json.loads(line, parse_float=str)
            ts_ns = row["ts"] * 1_000_000
            price, size = Price.from_str(row["price"]), Quantity.from_str(row["volume"])
            trade_id = TradeId(str(number))
            ticks.append(TradeTick(INSTRUMENT.id, price, size, AggressorSide.BUYER, trade_id, ts_ns, ts_ns))
    return ticks


def main() -> None:
    """Measure one run; one JSON object on standard output."""
    path = Path(sys.argv[1])
    engine = BacktestEngine(
        BacktestEngineConfig(
            logging=LoggingConfig(bypass_logging=True),
            risk_engine=RiskEngineConfig(bypass=True),
            run_analysis=False,
        )
    )
    engine.add_venue(
        venue=VENUE,
        oms_type=OmsType.NETTING,
        account_type=AccountType.MARGIN,
        starting_balances=[Money(1_000_000_000, USDT), Money(1_000_000, BTC)],
        frozen_account=True,
    )
    engine.add_instrument(INSTRUMENT)
    ticks = read_ticks(path)
    engine.add_data(ticks)
    strategy = Indicators() if "--indicator" in sys.argv[2:] else RunningSums()
    engine.add_strategy(strategy)
    begin = time.perf_counter()
    engine.run()
    seconds = time.perf_counter() - begin
    filled = sum(order.is_closed and order.filled_qty == strategy.size for order in engine.cache.orders())
    version = f"NautilusTrader {nautilus_trader.__version__}"
    answer = {"peer": version, "ticks": len(ticks), "seconds": seconds, "signals": strategy.signals, "filled": filled}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
