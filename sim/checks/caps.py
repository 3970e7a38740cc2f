"""Whether the risk caps held: worked out from what is stored alone, in fractions, without tradebot.execution."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from fractions import Fraction

from tradebot.config.model import RiskCaps


def check_caps(db: sqlite3.Connection, runs: Sequence[int], caps: RiskCaps, open_orders: int = 0) -> None:
    """No order of these consecutive runs took the exposure past a cap, and none was refused for a cap it kept within.

    Exposure is |net position| x price, prices as of the signal's tick. An order that lowers its symbol's position is
    always allowed. Raises AssertionError.
    """
    net: dict[str, Fraction] = {}
    price_of: dict[str, Fraction] = {}
    for run in runs:
        ticks = db.execute("SELECT symbol, price FROM ticks WHERE run = ? ORDER BY id", (run,)).fetchall()
        seen = 0
        query = (
            "SELECT event_id, symbol, side, qty, price, status, reason FROM orders"
            " WHERE run = ? AND reason IN ('SHADOW_RECORDED', 'RISK_CAP') ORDER BY id"
        )
        for event_id, symbol, side, qty, price, status, reason in db.execute(query, (run,)):
            number = int(event_id.rsplit("-", 2)[1])
            for other, value in ticks[seen:number]:
                price_of[other] = _exact(value)
            seen = number
            before = net.get(symbol, Fraction(0))
            after = before + (_exact(qty) if side == "BUY" else -_exact(qty))
            exposures = {other: abs(held) * price_of[other] for other, held in net.items()}
            exposures[symbol] = abs(after) * _exact(price)
            allowed = abs(after) < abs(before) or (
                exposures[symbol] <= _exact(caps.max_symbol_exposure_usd)
                and sum(exposures.values()) <= _exact(caps.max_exposure_usd)
                and open_orders < caps.max_open_orders
            )
            told = f"{event_id} {side} {qty} {symbol} at {price}: exposure {float(exposures[symbol])}"
            assert allowed == (status == "FILLED"), f"order {told} was {status}, reason {reason}, caps {caps}"
            if allowed:
                net[symbol] = after
        for other, value in ticks[seen:]:
            price_of[other] = _exact(value)


def _exact(value: float) -> Fraction:
    """The shortest decimal that the double prints as."""
    return Fraction(repr(float(value)))
