"""The money of one account: calculated from the fills so far and the orders that are open, never carried along."""

from __future__ import annotations

from fractions import Fraction

from tests.paper_reference.orders import Order
from tests.paper_reference.values import Settings


class Account:
    """Cash and positions. All symbols of a run are quoted in the account currency or in one that counts 1:1."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.cash = settings.initial_balance
        self.positions: dict[str, Fraction] = {}
        self.fees = Fraction(0)

    def apply(self, order: Order, qty: Fraction, price: Fraction, fee: Fraction) -> None:
        signed = qty if order.side == "BUY" else -qty
        self.positions[order.request.symbol] = self.position(order.request.symbol) + signed
        self.cash -= signed * price + fee
        self.fees += fee

    def position(self, symbol: str) -> Fraction:
        return self.positions.get(symbol, Fraction(0))

    def reducible(self, order: Order) -> Fraction:
        """How much of the position an order of this side can take away."""
        position = self.position(order.request.symbol)
        return max(Fraction(0), position if order.side == "SELL" else -position)

    def reserved(self, order: Order) -> Fraction:
        """The cash that an open BUY keeps from others: its worst price with the taker's fee."""
        if order.side != "BUY" or order.request.reduce_only:
            return Fraction(0)
        return order.remaining * order.reserve_each

    def affordable(self, order: Order, orders: list[Order], price: Fraction, fee: Fraction) -> Fraction:
        """How much of a BUY at `price` can be paid: from all cash that no other open order keeps."""
        others = self.all_reserved([other for other in orders if other is not order])
        return max(Fraction(0), self.cash - others) / (price * (1 + fee))

    def all_reserved(self, orders: list[Order]) -> Fraction:
        return sum((self.reserved(order) for order in orders if order.open), Fraction(0))

    def sellable(self, symbol: str, orders: list[Order]) -> Fraction:
        """Holdings that no open SELL has promised already."""
        return self.position(symbol) - sum((promised(order, symbol) for order in orders), Fraction(0))

    def equity(self, prices: dict[str, Fraction]) -> Fraction:
        return self.cash + sum((qty * prices[symbol] for symbol, qty in self.positions.items() if qty), Fraction(0))


def promised(order: Order, symbol: str) -> Fraction:
    """What an open SELL keeps of the holdings. Those that only reduce keep nothing: a bracket's exits neither."""
    keeps = order.open and order.side == "SELL" and order.request.symbol == symbol and not order.request.reduce_only
    return order.remaining if keeps else Fraction(0)
