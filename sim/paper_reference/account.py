"""The money of one account: calculated from the fills so far and the orders that are open, never carried along."""

from __future__ import annotations

from fractions import Fraction

from sim.paper_reference.orders import Order
from sim.paper_reference.values import Settings


class Account:
    """Cash and positions. Rates are fixed, so that all of it can be kept in the account currency."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.cash = settings.initial_balance
        self.positions: dict[str, Fraction] = {}
        self.units: dict[str, Fraction] = {}  # of each symbol: what turns quantity x price into the account's money
        self.prices: dict[str, Fraction] = {}  # the newest of each symbol, those of fills too

    def apply(self, order: Order, qty: Fraction, price: Fraction, fee: Fraction) -> None:
        """Take in a fill; `fee` is in the account's money."""
        signed = qty if order.side == "BUY" else -qty
        self.positions[order.request.symbol] = self.position(order.request.symbol) + signed
        self.prices[order.request.symbol] = price
        self.cash -= signed * price * self.units[order.request.symbol] + fee

    def position(self, symbol: str) -> Fraction:
        """What is held of a symbol; negative when short."""
        return self.positions.get(symbol, Fraction(0))

    def reducible(self, order: Order) -> Fraction:
        """How much of the position an order of this side can take away."""
        position = self.position(order.request.symbol)
        return max(Fraction(0), position if order.side == "SELL" else -position)

    def reserved(self, order: Order) -> Fraction:
        """The money that an open order keeps from others: its worst price with the taker's fee, for what it opens.

        In spot a SELL keeps holdings instead, and what only reduces keeps nothing.
        """
        if order.request.reduce_only or (order.side == "SELL" and not self.settings.allow_short):
            return Fraction(0)
        return min(order.opening, order.remaining) * order.reserve_each

    def free(self, orders: list[Order]) -> Fraction:
        """What may be spent when these orders keep theirs. In spot that is the cash which they leave."""
        at_stake = sum((abs(self.value(symbol)) for symbol in self.positions), Fraction(0))
        kept = sum((self.reserved(order) for order in orders if order.open), Fraction(0))
        return self.equity() * self.settings.max_leverage - at_stake - kept

    def sellable(self, symbol: str, orders: list[Order]) -> Fraction:
        """Holdings that no open SELL has promised already."""
        return self.position(symbol) - sum((promised(order, symbol) for order in orders), Fraction(0))

    def equity(self) -> Fraction:
        """Cash and the value of all positions at the newest prices."""
        return self.cash + sum((self.value(symbol) for symbol in self.positions), Fraction(0))

    def value(self, symbol: str) -> Fraction:
        """What a position is worth at the newest price; negative when short."""
        return self.position(symbol) * self.prices[symbol] * self.units[symbol]


def promised(order: Order, symbol: str) -> Fraction:
    """What an open SELL keeps of the holdings. Those that only reduce keep nothing: a bracket's exits neither."""
    keeps = order.open and order.side == "SELL" and order.request.symbol == symbol and not order.request.reduce_only
    return order.remaining if keeps else Fraction(0)
