"""From a finished pipeline to the summary: gathers numbers, decides nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tradebot.config.model import Config, Settings
from tradebot.core.currencies import unit_of
from tradebot.core.errors import ExitCode
from tradebot.core.events import BP_DROP_SIGNAL, FINAL_STATUSES, LIQUIDATED, RISK_CAP
from tradebot.core.ledger import Ledger
from tradebot.execution.paper_view import LIQUIDATED_TEXT, PaperView, view_of
from tradebot.execution.trips import blocked_texts
from tradebot.portfolio.account import Account
from tradebot.portfolio.book import book_of
from tradebot.portfolio.money import Money
from tradebot.portfolio.positions import Positions, PositionView
from tradebot.report.summary import PositionLine, RunSummary
from tradebot.store.results import StoredResults
from tradebot.store.runs import RunInfo, RunRecord
from tradebot.threads.counters import Metrics
from tradebot.threads.pipeline import Pipeline


def summarize(
    settings: Settings,
    info: RunInfo,
    record: RunRecord,
    pipeline: Pipeline,
    ledger: Ledger,
    code: ExitCode,
    elapsed_s: float,
    database: str | None,
    lost_log_lines: int,
) -> RunSummary:
    """The summary of a run whose stages have ended. `database` is None for a run that stored nothing."""
    metrics, failure = pipeline.metrics, pipeline.failure
    refusals = {**metrics.vetoes, BP_DROP_SIGNAL: metrics.bp_drops_signal}
    positions, book, paper = pipeline.positions(), pipeline.book(), pipeline.paper
    return RunSummary(
        run_id=info.run_id,
        run_no=record.no,
        mode=info.mode,
        ingest=info.ingest,
        source=_source(settings, info),
        db_path=database,
        elapsed_s=elapsed_s,
        ledger=ledger,
        signals=metrics.signal_count,
        orders_by_status=_by_status(metrics, paper),
        refusals_by_reason={reason: count for reason, count in refusals.items() if count},
        fills=metrics.trade_count,
        fees=pipeline.fees(),
        profit=book.profit,
        unit=book.unit,
        realized=book.realized,
        unrealized=book.unrealized,
        positions=_lines(positions),
        paper=paper,
        exit_code=code,
        error=pipeline.stopped_by if failure is None else failure.cause,
        resumed=not record.is_new,
        continued=pipeline.continues,
        blocked=(*blocked_texts(pipeline.breakers.view), *_liquidated(paper)),
        gaps=metrics.gaps,
        reconnects=metrics.reconnects,
        lost_log_lines=lost_log_lines,
        hints=(
            *_way_out(settings, code),
            *_hints(info, RISK_CAP in refusals, settings.options.speed is None and ledger.received > 1000),
        ),
    )


def _by_status(metrics: Metrics, paper: PaperView | None) -> dict[str, int]:
    """Orders by their present status; in PAPER, those that have not ended count as OPEN, also those of earlier runs."""
    counts = {"FILLED": metrics.shadow_orders, "REJECTED": metrics.orders_rejected + metrics.orders_bounced}
    if paper is not None:
        counts |= {"CANCELED": metrics.orders_canceled, "EXPIRED": metrics.orders_expired, "OPEN": paper.open_orders}
    return {status: count for status, count in counts.items() if count or status in ("FILLED", "REJECTED")}


def _with_open(found: Mapping[str, int]) -> dict[str, int]:
    """Stored orders by their present status; those that have not ended count as OPEN."""
    ended = {status: count for status, count in found.items() if status in FINAL_STATUSES}
    still_open = sum(found.values()) - sum(ended.values())
    return {"FILLED": 0, "REJECTED": 0} | ended | ({"OPEN": still_open} if still_open else {})


def summarize_stored(
    settings: Settings, info: RunInfo, found: StoredResults, database: str, money: Money
) -> RunSummary:
    """The summary of a replay that the database holds whole, from what it holds."""
    money.rates.on_prices(found.last_prices.items())
    views = Positions.of(found.positions.states(), money.instruments).views()
    book, orders = book_of(views, None, money), _with_open(found.orders_by_status)
    paper = _stored_account(settings.config, found, money, orders) if info.mode == "PAPER" else None
    return RunSummary(
        run_id=info.run_id,
        run_no=found.run_no,
        mode=info.mode,
        ingest=info.ingest,
        source=_source(settings, info),
        db_path=database,
        elapsed_s=None,
        ledger=found.ledger,
        signals=found.signals,
        orders_by_status=orders,
        refusals_by_reason=found.refusals_by_reason,
        fills=found.fills,
        fees=book.fees,
        profit=book.profit,
        unit=book.unit,
        realized=book.realized,
        unrealized=book.unrealized,
        positions=_lines(views),
        paper=paper,
        exit_code=ExitCode.COMPLETE,
        blocked=_liquidated(paper),
        gaps=found.gaps,
        hints=_hints(info, bool(found.refusals_by_reason.get(RISK_CAP)), fast=False),
    )


def _liquidated(paper: PaperView | None) -> tuple[str, ...]:
    return (LIQUIDATED_TEXT,) if paper is not None and paper.liquidated else ()


def _stored_account(config: Config, found: StoredResults, money: Money, orders: Mapping[str, int]) -> PaperView:
    """The account after the fills of a replay, which begins with the configured balance."""
    account = Account.of_positions(config.account, found.positions.states(), *money)
    liquidated = account.is_ruined() or LIQUIDATED in found.refusals_by_reason
    return view_of(account, money.rates, orders.get("OPEN", 0), liquidated, None)


def _source(settings: Settings, info: RunInfo) -> str:
    """Where the ticks came from: of a replayed file its path, which `runs` does not hold."""
    file = settings.config.engine.replay_file
    return file if info.ingest == "replay" and file is not None else info.source


def _lines(positions: Sequence[PositionView]) -> tuple[PositionLine, ...]:
    return tuple(
        PositionLine(
            symbol=view.symbol,
            net_qty=view.net_qty,
            avg_price=view.average_cost if view.net_qty else None,
            last_price=view.last_price,
            realized=view.realized,
            unrealized=view.unrealized,
            unit=unit_of(view.currency),
        )
        for view in positions
    )


def _way_out(settings: Settings, code: ExitCode) -> list[str]:
    """What to do about an ending that was not asked for."""
    live, ingest = settings.live, settings.config.engine.ingest_mode
    if code is ExitCode.OVERLOAD:
        return [
            "try a larger channels.tick_channel_size, --sample-every=N or --log-level=warning;"
            " the OVERLOAD line of the log names the stage that was too slow"
        ]
    if code is ExitCode.NETWORK:
        local = ingest == "mockws"
        check = "start bin/mockws if it is not running" if local else "check the network, the URL and the clock"
        return [f"{check}; feed.reconnect_budget_s sets how long the engine tries to connect"]
    if code is ExitCode.PARSE and live is not None and ingest != "replay":
        return [f"is {live.exchange} the right exchange for this server?"]
    return []


def _hints(info: RunInfo, capped: bool, fast: bool) -> tuple[str, ...]:
    """What a newcomer may try after such a run."""
    hints = ["`tradebot show-config` with the same options shows every setting and where its value came from"]
    if not info.push and fast:
        hints.append("add --speed=20x --log-level=info to watch the same session at twenty times its own speed")
    if capped:
        hints.append("a risk cap refused orders: lower strategy.desired_size, or raise risk_caps in the configuration")
    return tuple(hints)
