"""The totals of the account of PAPER, for people: status, summary, log and metrics take their figures from here."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from tradebot.core.currencies import ACCOUNT_CURRENCY, UNKNOWN_UNIT, unit_of
from tradebot.core.events import LIQUIDATED
from tradebot.portfolio.account import Account
from tradebot.portfolio.exact import ZERO, finite
from tradebot.portfolio.rates import Rates


class PaperView(Struct, frozen=True, kw_only=True):
    """One look at the account and the venue of PAPER.

    `unit` is that of `equity` and `free`: the account currency, or `UNKNOWN_UNIT` where amounts count 1:1 in it whose
    currency or rate is not known.
    """

    equity: float
    """Cash and the value of all positions, at the last prints and rates."""
    free: float | None
    """What a new order may spend: open orders hold back the rest. None where these are not known."""
    unit: str
    cash: dict[str, float]
    """By currency, each in its own; that of symbols whose currency is not known under `UNKNOWN_UNIT`."""
    open_orders: int
    """Orders that have not ended, those of earlier runs included."""
    liquidated: bool
    """Whether the account has lost all it had, so that no order is sent any more."""
    sides_given: int
    """Prints whose sender named the taker."""
    sides_inferred: int
    """Prints whose taker was inferred from the price (tick rule)."""

    def log_fields(self) -> dict[str, object]:
        """The fields of the heartbeat."""
        return {"equity": self.equity, "free": self.free, "open_orders": self.open_orders}


def view_of(
    account: Account, rates: Rates, open_orders: int, liquidated: bool, taker_sides: tuple[int, int] | None
) -> PaperView:
    """The view of an account, on the thread that owns it; `taker_sides` None: of stored fills, all that is known."""
    cash = account.cash()
    known = all(currency is not None and rates.rate(currency) is not None for currency in cash)
    given, inferred = taker_sides or (0, 0)
    return PaperView(
        equity=finite(account.equity()),
        free=None if taker_sides is None else finite(max(account.free(), ZERO)),
        unit=ACCOUNT_CURRENCY if known else UNKNOWN_UNIT,
        cash={unit_of(currency): finite(amount) for currency, amount in cash.items()},
        open_orders=open_orders,
        liquidated=liquidated,
        sides_given=given,
        sides_inferred=inferred,
    )


LIQUIDATED_TEXT: Final = f"{LIQUIDATED}: the account has lost all it had, no order is sent any more"


def inferred_text(view: PaperView) -> str:
    """For how many prints the side of the taker was inferred, for people; empty before the first print with a side."""
    prints = view.sides_given + view.sides_inferred
    return f"inferred for {view.sides_inferred / prints:.1%} of {prints:,} prints" if prints else ""
