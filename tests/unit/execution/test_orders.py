"""What an order can be and become."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, get_args

import pytest

from tradebot.core.events import BUY, FINAL_STATUSES, SELL, OrderStatus
from tradebot.execution.orders import TRANSITIONS, OrderRequest, working

D = Decimal
STATUSES: tuple[OrderStatus, ...] = get_args(OrderStatus)


def request(**fields: Any) -> OrderRequest:
    return OrderRequest(**{"symbol": "A", "side": BUY, "qty": D(1), **fields})


def test_the_table_knows_every_status_and_final_is_final() -> None:
    assert set(TRANSITIONS) == {None, *STATUSES}
    assert {status for status, following in TRANSITIONS.items() if not following} == FINAL_STATUSES
    assert set().union(*TRANSITIONS.values()) == set(STATUSES)


@pytest.mark.parametrize("before", [None, *STATUSES])
@pytest.mark.parametrize("after", STATUSES)
def test_the_table_is_the_code(before: OrderStatus | None, after: OrderStatus) -> None:
    order = working(request(), "r-1-O", "r-1-S", 100.0)
    order.status = before
    if after in TRANSITIONS[before]:
        order.move(after)
        assert (order.status, order.events) == (after, 1)
    else:
        with pytest.raises(RuntimeError, match=f"order r-1-O cannot go from {before} to {after}"):
            order.move(after)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"qty": D(0)}, "quantity is 0, not above 0"),
        ({"qty": D("NaN")}, "quantity is NaN"),
        ({"side": "HOLD"}, "side is 'HOLD'"),
        ({"type": "LIMIT"}, "a LIMIT order needs a limit price"),
        ({"limit": D(1)}, "a MARKET order has no limit price"),
        ({"type": "STOP"}, "a STOP order needs a stop price"),
        ({"type": "STOP_LIMIT", "stop": D(1)}, "a STOP_LIMIT order needs a limit price"),
        ({"type": "LIMIT", "limit": D(1), "stop": D(1)}, "a LIMIT order has no stop price"),
        ({"type": "LIMIT", "limit": D(-1)}, "a price or distance is -1, not above 0"),
        ({"type": "TRAILING_STOP"}, "a TRAILING_STOP order needs one distance"),
        ({"type": "TRAILING_STOP", "trail_bps": D(1), "trail_amount": D(1)}, "needs one distance"),
        ({"trail_bps": D(1)}, "a MARKET order has no trailing distance"),
        ({"type": "TRAILING_STOP", "trail_bps": D(10_000)}, "10000 basis points, not below 10000"),
        ({"expire_ts": 1}, "an expiry time belongs to GTD orders"),
        ({"time_in_force": "GTD"}, "an expiry time belongs to GTD orders"),
        ({"post_only": True}, "only a LIMIT order that stays"),
        ({"type": "LIMIT", "limit": D(1), "time_in_force": "IOC", "post_only": True}, "only a LIMIT order that stays"),
        ({"stop_loss": D(0)}, "a price or distance is 0"),
    ],
)
def test_a_request_that_contradicts_itself_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        request(**fields).check()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"type": "LIMIT", "limit": D(1), "post_only": True},
        {"type": "LIMIT", "limit": D(1), "time_in_force": "GTD", "expire_ts": 5, "post_only": True},
        {"type": "STOP_LIMIT", "limit": D(1), "stop": D(2)},
        {"type": "TRAILING_STOP", "trail_bps": D(1), "side": SELL, "reduce_only": True},
        {"take_profit": D(2), "stop_loss": D(1), "time_in_force": "IOC"},
    ],
)
def test_sensible_requests_pass(fields: dict[str, Any]) -> None:
    request(**fields).check()
