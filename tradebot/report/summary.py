"""The summary at the end of a run, for people. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Final

from msgspec import Struct

from tradebot.core.currencies import UNKNOWN_UNIT, amount
from tradebot.core.errors import ExitCode
from tradebot.core.ledger import Ledger
from tradebot.core.number_format import money, number
from tradebot.execution.paper_view import PaperView, inferred_text
from tradebot.output.json_answer import json_answer
from tradebot.output.redaction import clip, escape, mask

MAX_SYMBOLS: Final = 40
_MAX_CELL_CHARS: Final = 28
_LABEL_CHARS: Final = 18


class PositionLine(Struct, frozen=True, kw_only=True):
    """The result of the simulated fills of one symbol. Prices are those of its ticks; profit is before fees."""

    symbol: str
    net_qty: float
    avg_price: float | None
    """Average entry price of what is held; None when nothing is."""
    last_price: float | None
    """Price of the last tick seen; None when there was none."""
    realized: float
    unrealized: float
    unit: str = UNKNOWN_UNIT
    """The currency of its prices and amounts."""


class RunSummary(Struct, frozen=True, kw_only=True):
    """What the summary shows. Counts are of this run only; after a resume `ledger.already_stored` counts the rest."""

    run_id: str
    run_no: int
    """The value of the column `run` in this run's rows."""
    mode: str
    ingest: str
    source: str
    """Where the ticks came from: a path, a URL (masked when shown), "synthetic"."""
    db_path: str | None
    """The database; None when nothing was stored."""
    elapsed_s: float | None
    """None where it is not known: a run of earlier."""
    ledger: Ledger
    signals: int
    orders_by_status: Mapping[str, int]
    refusals_by_reason: Mapping[str, int]
    fills: int
    fees: float
    """Of this run's fills."""
    profit: float
    """Of all positions, at the last known prices, after all fees."""
    unit: str
    """The label of these amounts: their currency, or that it is not known."""
    realized: float = 0.0
    """Of all positions before fees, like `unrealized`; in `unit`."""
    unrealized: float = 0.0
    positions: tuple[PositionLine, ...]
    exit_code: ExitCode
    error: str | None = None
    """Why the run ended as it did, when it was not asked to."""
    resumed: bool = False
    continued: bool = False
    """Whether positions of earlier runs went on in this one."""
    paper: PaperView | None = None
    """The account of PAPER; None in SHADOW."""
    blocked: tuple[str, ...] = ()
    """What kept orders from being sent at the end: a halt, breakers; in words."""
    gaps: int = 0
    reconnects: int = 0
    lost_log_lines: int = 0
    hints: tuple[str, ...] = ()
    """What to try next, besides looking into the database."""

    @property
    def ticks_per_s(self) -> float:
        """Everything received, over the whole run's time; 0 when no time passed, or it is not known."""
        return self.ledger.received / self.elapsed_s if self.elapsed_s else 0.0


def render(summary: RunSummary, encoding: str) -> str:
    """The summary as aligned text that ends in a newline, for a stream of that encoding. Never in colour.

    Plain ASCII unless the encoding is UTF-8. It can always be written to such a stream: what cannot is spelled out.
    """
    code, elapsed_s = summary.exit_code, summary.elapsed_s
    blocks = [
        [f"{summary.mode.upper()} run: all fills are simulated, no order has left this program."],
        _pairs(
            ("run", escape(summary.run_id) + (" (resumed)" if summary.resumed else "")),
            ("input", f"{escape(summary.ingest)}, {escape(mask(summary.source))}"),
            ("database", escape(summary.db_path) if summary.db_path is not None else "none: nothing was stored"),
            *([] if elapsed_s is None else [("time", f"{elapsed_s:,.2f} s, {summary.ticks_per_s:,.0f} ticks/s")]),
            ("exit code", f"{int(code)} {code.name}: {code.meaning}"),
            *([("because", escape(mask(summary.error)))] if summary.error is not None else []),
        ),
        _ledger_block(summary.ledger) + _link_lines(summary),
        _decisions_block(summary),
        _positions_block(summary),
        _account_block(summary.paper),
        _next_block(summary),
    ]
    text = "\n\n".join("\n".join(lines) for lines in blocks if lines) + "\n"
    # Even UTF-8 cannot write a lone surrogate, which a file name that is not UTF-8 turns into.
    writable = "utf-8" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else "ascii"
    return text.encode(writable, "backslashreplace").decode(writable)


def as_object_line(summary: RunSummary) -> str:
    """The summary for scripts: one JSON object on one line, with the fields of `RunSummary`."""
    fields = {name: getattr(summary, name) for name in summary.__struct_fields__}
    return json_answer({"format": 1, **fields, "ticks_per_s": round(summary.ticks_per_s, 3)})


def _ledger_block(ledger: Ledger) -> list[str]:
    account = ledger.as_dict()
    always = ("malformed", "accepted", "stored")
    names = {"received": "ticks read", "accepted": "kept", "sampled_out": "sampled out"}
    rows = [
        (names.get(name, name.replace("_", " ")), f"{value:,}")
        for name, value in account.items()
        if isinstance(value, int) and (value != 0 or name in ("received", *always))
    ]
    lines = _counts(rows)
    if ledger.cause is not None:
        lines.append(f"  not stored because {ledger.cause}")
    problems = ledger.problems()
    if problems:
        lines.append("  THE LEDGER DOES NOT BALANCE, which is a bug in tradebot:")
        lines += [f"    {problem}" for problem in problems]
    else:
        lines.append("  ledger balances: every tick read is accounted for")
    return ["Ticks", *lines]


def _link_lines(summary: RunSummary) -> list[str]:
    """What the ledger does not tell of a live feed: trades that never came are in no account."""
    if not summary.gaps and not summary.reconnects:
        return []
    return [
        f"  {summary.gaps:,} gaps in the senders' sequence numbers, {summary.reconnects:,} reconnects:"
        " see the table notices"
    ]


def _decisions_block(summary: RunSummary) -> list[str]:
    rows = [("signals", f"{summary.signals:,}")]
    rows += [(f"orders {escape(status)}", f"{n:,}") for status, n in sorted(summary.orders_by_status.items())]
    rows += [(f"refused {escape(reason)}", f"{n:,}") for reason, n in sorted(summary.refusals_by_reason.items())]
    rows += [("fills (simulated)", f"{summary.fills:,}"), ("fees", amount(summary.fees, summary.unit))]
    lines = _counts(rows)
    lines += [f"  blocked at the end: {escape(text)}" for text in summary.blocked[:MAX_SYMBOLS]]
    return ["Signals, orders, fills", *lines]


def _account_block(paper: PaperView | None) -> list[str]:
    if paper is None:
        return []
    rows = [("equity", amount(paper.equity, paper.unit))]
    rows += [] if paper.free is None else [("free to spend", amount(paper.free, paper.unit))]
    rows += [("cash", amount(held, unit)) for unit, held in paper.cash.items()]
    lines = _counts(rows)
    if share := inferred_text(paper):
        lines.append(f"  side of the taker {share}")
    return ["Account (simulated; without funding of perpetual contracts and interest)", *lines]


def _positions_block(summary: RunSummary) -> list[str]:
    positions = summary.positions
    if not positions:
        return ["Positions", "  none: nothing was filled"]
    # The largest first, so that what is cut off matters least; by name where equal, so that the order is fixed.
    ordered = sorted(positions, key=lambda line: (-_notional(line), line.symbol))
    shown = ordered[:MAX_SYMBOLS]
    table = [("symbol", "net qty", "avg price", "last price", "realized", "unrealized", "unit")]
    table += [
        (
            _cell(line.symbol),
            number(line.net_qty),
            number(line.avg_price),
            number(line.last_price),
            money(line.realized),
            money(line.unrealized),
            _unit_cell(line.unit),
        )
        for line in shown
    ]
    if len(positions) > 1:
        table.append(
            (
                f"all {len(positions):,} symbols",
                "",
                "",
                "",
                money(summary.realized),
                money(summary.unrealized),
                _unit_cell(summary.unit),
            )
        )
    lines = _columns(table)
    if len(positions) > len(shown):
        lines.insert(1 + len(shown), f"  ... and {len(positions) - len(shown):,} more")
    lines.append(f"  profit after fees: {amount(summary.profit, summary.unit)}")
    earlier = ", with the fills of earlier runs" if summary.continued else ""
    return [f"Positions (profit before fees{earlier})", *lines]


def _unit_cell(unit: str) -> str:
    """The unit below the column heading `unit`."""
    return "unknown" if unit == UNKNOWN_UNIT else unit


def _next_block(summary: RunSummary) -> list[str]:
    lines = []
    if summary.db_path is not None:
        database = shlex.quote(summary.db_path)
        columns = "symbol, side, count(*), sum(fill_qty), sum(fees)"
        query = f"SELECT {columns} FROM trades WHERE run = {summary.run_no} GROUP BY symbol, side"
        lines += [
            f"  sqlite3 -header -column {escape(database)} \\",
            f'    "{query}"',
        ]
    lines += [f"  {escape(mask(hint))}" for hint in summary.hints]
    if summary.lost_log_lines:
        lines.append(f"  {summary.lost_log_lines:,} log lines could not be written to standard error")
    return ["What to try next", *lines] if lines else []


def _cell(text: str) -> str:
    """`text` escaped and short enough for a column."""
    shown = escape(text)
    return shown if len(shown) <= _MAX_CELL_CHARS else shown[: _MAX_CELL_CHARS - 2] + ".."


def _pairs(*rows: tuple[str, str]) -> list[str]:
    return [f"{label:<{_LABEL_CHARS - 6}}{clip(value, 2000)}" for label, value in rows]


def _counts(rows: Iterable[tuple[str, str]]) -> list[str]:
    listed = list(rows)
    label_chars = max(_LABEL_CHARS, *(len(label) for label, _ in listed))
    # Numbers end in one column, whatever unit follows.
    number_chars = max(len(value.partition(" ")[0]) for _, value in listed)
    return [
        f"  {label:<{label_chars}}  {value.partition(' ')[0]:>{number_chars}} {value.partition(' ')[2]}".rstrip()
        for label, value in listed
    ]


def _columns(table: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, the others (numbers) to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for first, *others in table:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(["", f"{first:<{widths[0]}}", *cells]).rstrip())
    return lines


def _notional(line: PositionLine) -> float:
    value = abs(line.net_qty * (line.last_price or line.avg_price or 0.0))
    return value if isfinite(value) else 0.0
