"""Checks the risk caps from the stored rows alone, with fractions, without tradebot.execution."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping, Sequence
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Final

from tradebot.config.model import RiskCaps

NO_RATES: Final[Mapping[str, str]] = MappingProxyType({})


def check_caps(
    db: sqlite3.Connection,
    runs: Sequence[int],
    caps: RiskCaps,
    open_orders: int = 0,
    rates: Mapping[str, str] = NO_RATES,
) -> None:
    """No order of these consecutive runs exceeded a cap, and none within the caps was refused.

    A refused order names the first cap that it would have passed, with the exposure and the limit. Exposure is
    |net position| x price, prices as of the signal's tick. An order that lowers its symbol's position is always
    allowed. `rates` names, for symbols that are not priced in dollars, the symbol whose last price is their rate.
    Raises AssertionError.
    """
    net: dict[str, Fraction] = {}
    price_of: dict[str, Fraction] = {}
    for run in runs:
        ticks = db.execute("SELECT symbol, price FROM ticks WHERE run = ? ORDER BY id", (run,)).fetchall()
        seen = 0
        query = (
            "SELECT event_id, symbol, side, qty, price, status, reason, refused_by, refused_value, refused_limit"
            " FROM orders"
            " WHERE run = ? AND reason IN ('SHADOW_RECORDED', 'RISK_CAP') ORDER BY id"
        )
        for event_id, symbol, side, qty, price, status, reason, *evidence in db.execute(query, (run,)):
            number = int(event_id.rsplit("-", 2)[1])
            for other, value in ticks[seen:number]:
                price_of[other] = _exact(value)
            seen = number
            before = net.get(symbol, Fraction(0))
            after = before + (_exact(qty) if side == "BUY" else -_exact(qty))
            price_of[symbol] = _exact(price)
            exposures = {
                other: abs(held) * price_of[other] * (price_of[rates[other]] if other in rates else 1)
                for other, held in (net | {symbol: after}).items()
            }
            figures = (
                ("max_symbol_exposure_usd", exposures[symbol]),
                ("max_exposure_usd", sum(exposures.values(), Fraction(0))),
                ("max_open_orders", Fraction(open_orders + 1)),
            )
            passed = [(name, value) for name, value in figures if value > _exact(getattr(caps, name))]
            allowed = abs(after) < abs(before) or not passed
            described = f"{event_id} {side} {qty} {symbol} at {price}: exposure {float(exposures[symbol])}"
            assert allowed == (status == "FILLED"), f"order {described} was {status}, reason {reason}, caps {caps}"
            if allowed:
                net[symbol] = after
                assert evidence == [None, None, None], f"order {described} was filled, but names a limit: {evidence}"
            else:
                _check_evidence(described, evidence, passed[0][0], passed[0][1], getattr(caps, passed[0][0]))
        for other, value in ticks[seen:]:
            price_of[other] = _exact(value)


def _check_evidence(described: str, evidence: list[Any], cap: str, value: Fraction, limit: float) -> None:
    """What the order's row says of its refusal. The value may lie one double higher, so that it is above the limit."""
    refused_by, refused_value, refused_limit = evidence
    wanted = f"risk_caps.{cap} {float(value)} above {limit}"
    assert (refused_by, refused_limit) == (f"risk_caps.{cap}", limit), f"order {described}: {evidence}, not {wanted}"
    lowest = float(value)
    assert refused_value in (lowest, math.nextafter(lowest, math.inf)), f"order {described}: {evidence}, not {wanted}"
    assert refused_value > refused_limit, f"order {described}: {evidence} is within the limit"


def _exact(value: float) -> Fraction:
    """The exact value of the shortest decimal representation."""
    return Fraction(repr(float(value)))
