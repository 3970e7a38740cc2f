"""Planted bugs in mode PAPER: the venue, the account, what is stored of a tick, and restarts."""

from __future__ import annotations

from typing import Final

from tests.sim.planted.bug import Bug

_VENUE: Final = "tradebot/execution/venue.py"
_DESK: Final = "tradebot/execution/desk.py"
_COMMANDS: Final = "paper_commands"

_VENUE_BUGS: Final = (
    Bug(
        "one_print_spent_twice",
        "each order that takes may have the whole budget of a print, not what those before it left",
        _VENUE,
        "self._take(order, tick.price, subtract(left, used))",
        "self._take(order, tick.price, left)",
        100,
    ),
    Bug(
        "resting_order_gets_what_was_taken",
        "resting orders may have the volume that taking orders were given by the same print",
        _VENUE,
        "subtract(volume, used), volume, self.tape",
        "volume, volume, self.tape",
        20,
        _COMMANDS,
    ),
    Bug(
        "filled_before_active",
        "an order is active from the next print, however long its way to the venue is",
        _VENUE,
        "        active_from_ms = self.tape.now_ms + wait_ms\n",
        "        active_from_ms = self.tape.now_ms\n",
        100,
    ),
    Bug(
        "filled_past_its_limit",
        "the limit is compared with the print, not with the quote and slippage that are paid",
        _VENUE,
        "(paid > limit if buys else paid < limit)",
        "(exact(price) > limit if buys else exact(price) < limit)",
        100,
    ),
    Bug(
        "touch_is_a_fill",
        "a print of the other side at the very limit fills a resting order, without a queue",
        "tradebot/execution/resting.py",
        ' or model == "through" or tape.side is None or tape.side == order.side:\n        return ZERO\n'
        '    if model == "front":\n',
        ' or tape.side is None or tape.side == order.side:\n        return ZERO\n    if model != "trades":\n',
        40,
        "paper_market",
    ),
    Bug(
        "arrival_judged_on_its_own_print",
        "whether an arriving limit order takes is judged on the quote after the print that activates it",
        _VENUE,
        "            self._activate(now_ms, tick)  # judged on the quote before this print\n"
        "        tape.observe((tick,), 0, 1)\n",
        "            tape.observe((tick,), 0, 1)\n            self._activate(now_ms, tick)\n        else:\n"
        "            tape.observe((tick,), 0, 1)\n",
        100,
    ),
    Bug(
        "market_order_never_times_out",
        "a market order that finds too little waits for more for ever",
        _VENUE,
        "                if not order.reduce_only:\n                    order.timeout_at_ms",
        "                if order.reduce_only:\n                    order.timeout_at_ms",
        100,
    ),
    Bug(
        "late_print_fills",
        "a print that is older than its symbol's event time fills orders like any other",
        _VENUE,
        "        if now_ms < tape.now_ms:\n            tape.observe((tick,), 0, 1)\n            return False\n",
        "",
        20,
        _COMMANDS,
    ),
    Bug(
        "stop_filled_by_its_trigger",
        "the print that triggers a stop fills it, too",
        _VENUE,
        "        self._fill(tick, active)  #",
        "        self._fill(tick, self._ages)  #",
        20,
        _COMMANDS,
    ),
    Bug(
        "both_exits_filled",
        "a take-profit that is filled does not shrink the stop beside it",
        _VENUE,
        "            if order.sibling_id is not None:\n                self._shrink(order.sibling_id, qty)\n",
        "",
        20,
        _COMMANDS,
    ),
    Bug(
        "expired_order_filled",
        "the last moment of an order is looked at only when another one of its symbol ends",
        _VENUE,
        "            for at_ms in (order.cancel_at_ms, order.expire_ts, order.timeout_at_ms):\n",
        "            for at_ms in (order.cancel_at_ms, order.timeout_at_ms):\n",
        20,
        _COMMANDS,
    ),
    Bug(
        "gap_not_marked",
        "a lost link marks no order, so that fills after it look as good as others",
        "tradebot/execution/paper.py",
        '        elif notice.kind in ("LINK_LOST", "RESTART"):',
        '        elif notice.kind in ("RESTART",):',
        40,
        "paper_market",
    ),
    Bug(
        "gap_cancels_nothing",
        "with on_gap = cancel, orders are marked but not canceled",
        _VENUE,
        '            order.gap_cancel = self._settings.on_gap == "cancel"\n',
        "",
        20,
        "paper_gaps_cancel",
    ),
    Bug(
        "taker_rule_mirrored",
        "where the sender does not say who took, the tick rule names the other side",
        "tradebot/execution/quote.py",
        "BUY if price > last else SELL",
        "SELL if price > last else BUY",
        100,
    ),
)

_ACCOUNT_BUGS: Final = (
    Bug(
        "reservation_forgotten",
        "an accepted order holds nothing back, so that the next one is promised the same money",
        "tradebot/execution/order_entry.py",
        "\n        desk.reserve(order)\n",
        "\n",
        100,
    ),
    Bug(
        "reservation_kept",
        "the end of an order does not give back the money that it held",
        _DESK,
        "            self.account.release_all(order_id)\n",
        "            self.account.release_qty(order_id, order.qty)\n",
        100,
    ),
    Bug(
        "fee_on_the_wrong_notional",
        "the fee of each partial fill is that of the whole order",
        _DESK,
        "fees = float(multiply(value_of(instrument, qty, price), fee_rate))",
        "fees = float(multiply(value_of(instrument, order.qty, price), fee_rate))",
        100,
    ),
    Bug(
        "maker_pays_the_taker_fee",
        "a resting order pays the fee of one that takes",
        _DESK,
        'instrument.maker_fee if execution.liquidity == "MAKER" else instrument.taker_fee',
        "instrument.taker_fee",
        20,
        _COMMANDS,
    ),
    Bug(
        "sold_short_in_spot",
        "two open sells may promise the same holdings",
        _DESK,
        "            self.account.reserve_qty(order.order_id, order.symbol, order.remaining)\n",
        "            pass\n",
        100,
    ),
)

_STORED_BUGS: Final = (
    Bug(
        "events_of_a_tick_swapped",
        "the transitions of a tick are stored in the reverse of their order",
        _DESK,
        "tuple(self._orders), tuple(events),",
        "tuple(self._orders), tuple(reversed(events)),",
        60,
    ),
    Bug(
        "tick_and_outcome_split",
        "a cut between two ticks leaves the outcome of the first one with the second",
        "tradebot/core/outcome_ticks.py",
        "if first <= one.number < first + len(ticks)]",
        "if first - (begin > 0) <= one.number < first + len(ticks) - (end is not None)]",
        40,
        "paper_replay_resumed",
    ),
    Bug(
        "resume_skips_an_outcome_too_many",
        "off by one: a resumed replay stores the next tick without its outcome",
        "tradebot/threads/inline.py",
        "        if stored < len(chunk):\n            with_outcomes",
        "        if stored:\n            outcomes = [one for one in outcomes if one.number != self._stored_ticks + 1]\n"
        "        if stored < len(chunk):\n            with_outcomes",
        40,
        "paper_replay_resumed",
    ),
)

_RESTART_BUGS: Final = (
    Bug(
        "balance_not_restored",
        "a restart begins with the initial balance",
        "tradebot/portfolio/account.py",
        '        self._cash = {currency: Decimal(amount) for currency, amount in state["cash"]}\n',
        "",
        20,
        "paper_restarted_with_open_orders",
    ),
    Bug(
        "reservations_not_restored",
        "after a restart, open orders hold no money back",
        "tradebot/portfolio/account.py",
        '{order: (currency, Decimal(amount)) for order, currency, amount in state["reserved"]}',
        "{}",
        20,
        "paper_restarted_with_open_orders",
    ),
    Bug(
        "open_orders_not_restored",
        "a restart forgets the orders that are open",
        _VENUE,
        "        self._orders = {order.order_id: order for order in orders}\n        self._watch()\n",
        "        self._orders = {}\n        self._watch()\n",
        20,
        "paper_restarted_with_open_orders",
    ),
    Bug(
        "partial_fill_lost_at_a_kill",
        "a restart gives each open order its whole quantity again",
        _VENUE,
        '        orders = msgspec.convert(state["orders"], list[WorkingOrder])\n',
        '        orders = msgspec.convert(state["orders"], list[WorkingOrder])\n'
        "        for order in orders:\n            order.remaining = order.qty\n",
        40,
        "paper_restarted_with_open_orders",
    ),
    Bug(
        "quote_not_restored",
        "after a restart, the quote has to be learned anew",
        _VENUE,
        '        self.tape.restore(state["tape"])\n',
        "",
        40,
        "paper_restarted_with_open_orders",
    ),
    Bug(
        "restart_runs_no_decisions_again",
        "the decisions stored after the checkpoint are not run again, so their orders are lost",
        "tradebot/executor.py",
        "list(_decisions(stored, number, number + len(run)))",
        "[]",
        20,
        "paper_restarted_with_open_orders",
    ),
    Bug(
        "restart_not_shown_to_execution",
        "a restart is stored as a notice, but its open orders are not marked: trades were missed",
        "tradebot/engine.py",
        "        execution.on_notice(restart)\n",
        "",
        20,
        "paper_restarted_with_open_orders",
    ),
)

PAPER_BUGS: Final = (*_VENUE_BUGS, *_ACCOUNT_BUGS, *_STORED_BUGS, *_RESTART_BUGS)
