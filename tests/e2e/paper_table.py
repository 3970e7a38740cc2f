"""The table of docs/paper.md: what each assumption of PAPER costs, on the session that comes with the project.

`python -m tests.e2e.paper_table` writes it into the page; tests/e2e/test_paper_table.py compares.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import median

from msgspec import Struct

REPO = Path(__file__).resolve().parents[2]
PAGE = REPO / "docs" / "paper.md"
SESSION = REPO / "fixtures" / "btcusdt_binance_spot_20240808.jsonl"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
# 0.01 BTC an order, with caps that refuse none of them: what differs is the venue alone.
COMMON = (
    "strategy.desired_size=0.01", "risk_caps.max_exposure_usd=1000000", "risk_caps.max_symbol_exposure_usd=1000000",
)  # fmt: skip


class Case(Struct, frozen=True):
    """A row: its label, the mode, and the keys that differ from the defaults."""

    label: str
    mode: str = "paper"
    keys: tuple[str, ...] = ()


def _cases() -> Iterator[Case]:
    yield Case("SHADOW", "shadow")
    for latency_ms in (0, 100, 1000):
        for participation in (0.1, 0.25, 1):
            keys: tuple[str, ...] = (f"paper.latency_ms={latency_ms}", f"paper.participation={participation}")
            default = ", the defaults" if (latency_ms, participation) == (100, 0.25) else ""
            yield Case(f"market, {latency_ms} ms, {participation:g}{default}", keys=keys)
    yield Case("market, 100 ms, 0.25, slippage 1 bp", keys=("paper.slippage_bps=1",))
    for queue in ("through", "trades", "front"):
        keys = ("execution.order_type=limit", "execution.post_only=true", f"paper.queue={queue}")
        yield Case(f"limit, post only, queue {queue}", keys=keys)


CASES = tuple(_cases())
HEADING = (
    "| orders, latency, participation | profit after fees (USD) | filled | median time to the first fill "
    "| mean slippage (bps) | refused | canceled | open at the end |\n|---|---:|---:|---:|---:|---:|---:|---:|\n"
)


def row(case: Case, db: Path) -> str:
    """The row of `case`, from a run of the engine that writes `db`."""
    command = [
        str(REPO / "bin" / "tradebot"), f"--mode={case.mode}", "--ingest=replay", f"--replay-file={SESSION}",
        f"--db={db}", "--log-level=error", "--json", *(f"--set={key}" for key in (*COMMON, *case.keys)),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    summary = json.loads(done.stdout)
    with closing(sqlite3.connect(db)) as connection:
        fills = connection.execute(
            "SELECT sum(fill_qty), sum(slippage_bps * fill_qty) / sum(fill_qty) FROM trades"
        ).fetchone()
        [(ordered,)] = connection.execute("SELECT sum(qty) FROM orders WHERE status != 'REJECTED'")
        query = "SELECT min(t.ts) - o.ts FROM trades t JOIN orders o ON o.event_id = t.order_id GROUP BY o.id"
        waits = [ms for (ms,) in connection.execute(query)]
    qty, slippage = fills[0] or 0.0, fills[1] or 0.0
    orders = summary["orders_by_status"]
    counts = " | ".join(str(orders.get(status, 0)) for status in ("REJECTED", "CANCELED", "OPEN"))
    return (
        f"| {case.label} | {summary['profit']:.2f} | {100 * qty / ordered:.1f} % | {median(waits or [0]):.0f} ms "
        f"| {slippage:.2f} | {counts} |\n"
    )


def table() -> str:
    """The whole table."""
    with tempfile.TemporaryDirectory() as scratch:
        rows = [row(case, Path(scratch) / f"{number}.db") for number, case in enumerate(CASES)]
    return HEADING + "".join(rows)


def table_of(page: str) -> str:
    """What the page says."""
    return page.partition(BEGIN)[2].partition(END)[0]


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(text.replace(BEGIN + table_of(text) + END, BEGIN + table() + END), encoding="utf-8")
