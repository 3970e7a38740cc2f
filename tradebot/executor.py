"""What a run executes with, by its mode, and where a run of a push feed continues.

Execution inside the strategy stage continues with its open orders: from the newest stored state, and from what was
stored after it, which runs again: the ticks, the notices of origin INPUT and the decisions. So the result is that of a
run that was never interrupted. The orders and fills that come out are stored already, so PAPER runs it again as it was
configured then: a state has that configuration with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Final

import msgspec

from tradebot.config.model import RESULT_SECTIONS, Config
from tradebot.core.errors import ConfigError
from tradebot.core.events import LIQUIDATED, Notice
from tradebot.execution.base import InlineExecutor
from tradebot.execution.breakers import Breakers
from tradebot.execution.inline_shadow import InlineShadow
from tradebot.execution.order_entry import PaperSettings
from tradebot.execution.paper import PaperExecution, configured_of
from tradebot.execution.shadow import ShadowExecution
from tradebot.execution.timing import Recorded, TimingRefusals, TooOld
from tradebot.feeds.memory import FeedMemory
from tradebot.portfolio.money import Money
from tradebot.portfolio.rates import Rates
from tradebot.store.protocol import Store
from tradebot.store.runs import RunRecord
from tradebot.store.saved_state import SavedState, StoredItem
from tradebot.store.takeover import Carried
from tradebot.strategy.base import Decision, Strategy, SymbolHistory
from tradebot.strategy.decider import symbol_runs

_UNREADABLE: Final = ValueError, LookupError, TypeError, AttributeError, ArithmeticError
"""What a state that is damaged, or of another version, may raise."""


def make_executor(
    config: Config, run_id: str, money: Money, refusals: TimingRefusals | None = None
) -> ShadowExecution | InlineExecutor:
    """What the run's mode executes with; SHADOW with a breaker executes inside the strategy stage.

    `refusals` are those that a replay of a stored run repeats.
    """
    breakers = Breakers(config.breakers)
    if config.mode == "SHADOW":
        shadow = ShadowExecution(config.risk_caps, money, config.execution.max_tick_age_ms)
        if not breakers.active:
            return shadow
        strategy, balance = config.strategy, config.account.initial_balance
        return InlineShadow(run_id, strategy.desired_size, strategy.confidence, shadow, breakers, balance, refusals)
    settings = PaperSettings(config.strategy, config.execution, config.paper)
    return PaperExecution(
        run_id, settings, money, config.account, config.risk_caps, breakers, refusals, configured=_configured(config)
    )


def _configured(config: Config) -> str:
    """What PAPER depends on in a configuration, as text that is the same for the same values."""
    values = {name: msgspec.to_builtins(getattr(config, name)) for name in ("mode", *RESULT_SECTIONS)}
    return msgspec.json.encode(values, order="deterministic").decode()


def take_over(
    store: Store,
    record: RunRecord,
    strategy: Strategy,
    executor: ShadowExecution | InlineExecutor,
    make_memory: Callable[[], FeedMemory | None],
) -> tuple[Carried, FeedMemory | None]:
    """Continue strategy and positions where earlier runs of this feed ended; what the feed needs for the same.

    Blocks as the store does. Raises ConfigError, OverloadError.
    """
    carried, memory = store.read_restart_state(record, max(1, strategy.lookback), make_memory)
    if isinstance(executor, ShadowExecution):
        marks = _marks(carried)
        executor.restore((), marks, carried.positions)
    for symbol, known in carried.symbols.items():
        if known.last_tick:
            strategy.restore(symbol, SymbolHistory(known.prices, known.last_side, known.since_signal))
    return carried, memory


def _marks(carried: Carried) -> list[tuple[str, float]]:
    return [(symbol, known.prices[-1]) for symbol, known in carried.symbols.items() if known.prices]


def continue_execution(
    store: Store,
    record: RunRecord,
    executor: InlineExecutor,
    run_id: str,
    carried: Carried,
    too_old: TooOld,
) -> str | None:
    """Bring `executor` to where the earlier runs of the feed ended; the ticks that follow are those of run `run_id`.

    `carried` is what `take_over` gave; `too_old` refuses signals of the ticks that follow. Returns the id of the run
    that it continues, None if there is no such run. Reads what was stored since the newest checkpoint; blocks as the
    store does. Raises ConfigError, OverloadError.
    """
    saved = store.read_saved_state(record)
    if isinstance(executor, InlineShadow):
        # Earlier runs without breakers left no state: then only positions continue.
        last = None if saved is None else _continue(store, record, executor, saved)
        _hold(executor, carried)
    else:
        last = _continue(store, record, executor, saved)
    executor.continue_as(run_id)
    executor.refusals = too_old
    return last


def _hold(executor: InlineShadow, carried: Carried) -> None:
    """Take over the positions of the stored fills if those that the ticks gave again differ from them.

    They differ if runs without breakers, which store no state, came in between.
    """
    held = {state.symbol: state.net for state in carried.positions.states()}
    if held != {state.symbol: state.net for state in executor.positions.states()}:
        executor.take_over(_marks(carried), carried.positions)


def _continue(store: Store, record: RunRecord, executor: InlineExecutor, saved: SavedState | None) -> str | None:
    last, now = None, executor
    if saved is not None:
        try:
            if isinstance(executor, PaperExecution):
                executor = _as_configured_then(executor, saved)
            executor.restore(saved.state)
        except _UNREADABLE as error:
            why = str(error) if type(error) is ValueError else f"it is damaged ({type(error).__name__}: {error})"
            raise ConfigError(
                f"the database has the state after tick {saved.ticks_before} of run {saved.run_id}, from which"
                f" this version cannot continue: {why}; use another --db, or the version that wrote it"
            ) from error
        last = saved.run_id
    with closing(store.stored_since(record, saved)) as items:
        last = _again(executor, items) or last
    if executor is not now:
        now.restore(executor.state())
    return last


def _as_configured_then(executor: PaperExecution, saved: SavedState) -> PaperExecution:
    """An executor with the configuration of `saved`; `executor` itself where that is the same, or not known.

    Raises ValueError when this version cannot read it.
    """
    text = configured_of(saved.state)
    if text is None or text == executor.configured:
        return executor
    then = msgspec.json.decode(text, type=Config)
    instruments = executor.money.instruments.configured_as(then.instruments, then.execution.fee_rate)
    older = make_executor(then, saved.run_id, Money(instruments, Rates(then.rates, instruments)))
    assert isinstance(older, PaperExecution)
    return older


def _again(executor: InlineExecutor, items: Iterable[StoredItem]) -> str | None:
    """Run stored items through `executor`; the id of the run that the last of them belongs to."""
    run_id = None
    for stored in items:
        if stored.run_id != run_id:
            run_id = stored.run_id
            executor.continue_as(run_id)
        if isinstance(stored.item, Notice):
            executor.on_notice(stored.item)
            continue
        number = stored.number
        executor.refusals = Recorded(dict(stored.refusals))
        for symbol, run in symbol_runs(stored.item):
            executor.on_ticks(symbol, run, number, list(_decisions(stored, number, number + len(run))))
            number += len(run)
    return run_id


def _decisions(stored: StoredItem, begin: int, end: int) -> Iterator[Decision]:
    """Those of the ticks numbered `begin` up to `end`, which is left out. Execution makes its own of a liquidation."""
    for number, side, reason in stored.decisions:
        if begin <= number < end and reason != LIQUIDATED:
            yield Decision(number - begin, side, reason)
