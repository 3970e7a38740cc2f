"""Which feed a run reads: from settings to an input whose content is known before the first tick is stored."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from msgspec import Struct

from tradebot.config.model import Config, FeedConfig, Settings
from tradebot.core.cancellation import Cancellation
from tradebot.core.ids import short_digest
from tradebot.core.log_events import LogEvent
from tradebot.core.runtime import Runtime
from tradebot.execution.timing import TimingRefusals
from tradebot.feeds.base import Feed
from tradebot.feeds.exchanges import EXCHANGES
from tradebot.feeds.frame_reader import FrameReader
from tradebot.feeds.memory import FeedMemory
from tradebot.feeds.price_band import PriceBand
from tradebot.feeds.quarantine import Quarantine, quarantine_path
from tradebot.feeds.replay.feed import FileReplay
from tradebot.feeds.replay.frame_lines import FrameLineDecoder, check_first_line
from tradebot.feeds.replay.pacing import PacedFeed
from tradebot.feeds.replay.stored_runs import find_stored_runs
from tradebot.feeds.sampling import without_sampling
from tradebot.feeds.sequence_tracker import SequenceGuard
from tradebot.feeds.synthetic import START_PRICE, SyntheticFeed
from tradebot.feeds.websocket.feed import FeedTarget, WebSocketFeed
from tradebot.feeds.websocket.retry_after import RetryAfterFile, retry_after_path, server_of
from tradebot.feeds.websocket.transport import Transport
from tradebot.output.log import Log
from tradebot.portfolio.instruments import PairOf
from tradebot.store.feed_identity import feed_name, synthetic_name
from tradebot.store.takeover import Carried
from tradebot.strategy.registry import hears_notices


class Input(Struct):
    """A feed about to be opened.

    `source` names it in the `runs` table. `digest` is the hash of the content, None where it cannot be known
    beforehand. `stores` is False for a replay of the database's own ticks. `open` makes the feed; a push feed continues
    from what was carried over, and with a fresh `memory`, where it has any. `feed` is the name of a push feed, by which
    a restart finds its predecessors; `frames` says whether frames of an exchange are read. `pair_of` is what the
    exchange says of a symbol's currencies; None where the ticks are of no exchange that is known. `sampled`: its
    ticks were sampled when they were stored, so all are kept. `refusals` are those that a replay repeats.
    """

    push: bool
    source: str
    digest: str | None
    stores: bool
    unit: str
    open: Callable[[Carried | None, FeedMemory | None], Feed]
    feed: str = ""
    frames: bool = False
    sampled: bool = False
    refusals: TimingRefusals | None = None
    memory: Callable[[], FeedMemory | None] = lambda: None
    pair_of: PairOf | None = None

    def applied(self, config: Config) -> Config:
        """`config` as far as it applies to this input."""
        return without_sampling(config) if self.sampled else config


class Surroundings(Struct):
    """What an input needs besides its settings. `cancel` ends a feed's waits, `cancel_opening` the hashing."""

    db_path: Path
    runtime: Runtime
    cancel: Cancellation
    cancel_opening: Cancellation
    make_transport: Callable[[Runtime], Transport]
    log: Log


def open_input(settings: Settings, around: Surroundings) -> Input:
    """The input that `settings` ask for; a replay's content is hashed here. Main thread.

    Raises ConfigError, StorageUnavailable, Cancelled.
    """
    mode = settings.config.engine.ingest_mode
    if mode == "synthetic":
        return _synthetic(settings, around.runtime, around.cancel)
    if mode != "replay":
        return _live(settings, around)
    if settings.config.engine.replay_file is not None:
        return _file(settings, settings.config.engine.replay_file, around)
    return _database(settings, around)


def _file(settings: Settings, name: str, around: Surroundings) -> Input:
    decoder: FrameLineDecoder | None = None
    live, feed = settings.live, settings.config.feed
    strict = settings.options.strict
    if live is not None:
        decoder = FrameLineDecoder(
            EXCHANGES[live.exchange], feed.history, feed.max_symbols, max_price_jump=feed.max_price_jump, strict=strict
        )
    exchange = None if live is None else live.exchange

    def first_line(line: bytes) -> None:
        check_first_line(line, file_feed.name, exchange)

    file_feed = FileReplay(name, strict=strict, decoder=decoder, first_line=first_line, exchange=exchange)
    digest = file_feed.content_digest(around.cancel_opening)
    if live is not None and digest is not None:
        # The same frames read as another exchange's, or through another band, are another input.
        band = "" if feed.max_price_jump == FeedConfig().max_price_jump else f"band={feed.max_price_jump!r}:"
        digest = short_digest(f"{live.exchange}:{feed.max_symbols}:{band}{digest}")
    source = f"file:{Path(name).name}"

    def open_feed(_carried: Carried | None, _memory: FeedMemory | None) -> Feed:
        return _paced(file_feed, settings, around)

    pair_of = None if live is None else _pair_of(feed_name(live.exchange))
    return Input(False, source, digest, True, "B", open_feed, frames=live is not None, pair_of=pair_of)


def _live(settings: Settings, around: Surroundings) -> Input:
    live, feed = settings.live, settings.config.feed
    assert live is not None

    def make_memory() -> FeedMemory:
        guard, band = SequenceGuard(feed.max_symbols), PriceBand(feed.max_price_jump)
        return FeedMemory(guard, band, live.symbols, feed.max_symbols)

    def open_feed(_carried: Carried | None, memory: FeedMemory | None) -> Feed:
        known = make_memory() if memory is None else memory
        return WebSocketFeed(
            FeedTarget(live.url, live.symbols),
            feed,
            around.make_transport(around.runtime),
            FrameReader(EXCHANGES[live.exchange], feed.history, known.guard, known.band),
            Quarantine(quarantine_path(around.db_path)),
            RetryAfterFile(retry_after_path(around.db_path), server_of(live.url)),
            around.runtime,
            around.cancel,
            around.log,
        )

    name = feed_name(live.exchange, EXCHANGES[live.exchange].market_of(live.url))
    pair_of = _pair_of(name)
    return Input(
        True, live.source, None, True, "frame", open_feed, name, frames=True, memory=make_memory, pair_of=pair_of
    )


def _database(settings: Settings, around: Surroundings) -> Input:
    options, config = settings.options, settings.config
    path = around.db_path if options.replay_db is None else Path(options.replay_db)
    all_count = config.mode == "PAPER" or hears_notices(config.strategy.name)
    found = find_stored_runs(path, options.replay_run, all_count, around.cancel_opening)
    origin, earlier = found.origin, len(found.origin.runs) - 1
    if earlier:
        around.log.info(
            "the runs of a restarted feed are replayed as one", event=LogEvent.RUNS_JOINED, runs=earlier + 1,
            first=origin.runs[0].run_id, last=origin.run_id,
        )  # fmt: skip
    if origin.pruned:
        around.log.warning(
            "the run to replay was pruned", event=LogEvent.PRUNED_RUN, run_id=origin.run_id, pruned=origin.pruned,
            left=origin.rows,
            detail="its oldest ticks were deleted: the results are those of the remaining ticks, under another run id",
        )  # fmt: skip
    if config.engine.sample_every > 1:
        around.log.warning(
            "engine.sample_every is not applied: the ticks of a stored run were sampled when they were stored",
            event=LogEvent.SAMPLING_IGNORED, sample_every=config.engine.sample_every,
        )  # fmt: skip
    feed = found.feed()
    return Input(
        False,
        f"run:{origin.run_id}" + (f" and the {earlier} before it" if earlier else ""),
        found.digest,
        options.replay_db is not None,
        "tick",
        lambda _carried, _memory: _paced(feed, settings, around),
        sampled=True,
        refusals=found.repeated(),
        pair_of=_pair_of(origin.feed),
    )


def _pair_of(feed: str) -> PairOf | None:
    """What the exchange of a feed of this name says of its symbols."""
    exchange, _, market = feed.partition(":")
    return partial(EXCHANGES[exchange].pair, market=market) if exchange in EXCHANGES else None


def _synthetic(settings: Settings, runtime: Runtime, cancel: Cancellation) -> Input:
    config = settings.config
    symbol = config.app.symbol

    def open_feed(carried: Carried | None, _memory: FeedMemory | None) -> Feed:
        known = None if carried is None else carried.symbols.get(symbol)
        price = known.prices[-1] if known is not None and known.prices else None
        return SyntheticFeed(
            runtime,
            cancel,
            symbol,
            config.engine.tick_interval_ms,
            config.engine.sample_every,
            n=0 if carried is None else carried.ticks,
            price=START_PRICE if price is None else price,
        )

    name = synthetic_name(symbol)
    return Input(True, name, None, True, "tick", open_feed, name)


def _paced(feed: Feed, settings: Settings, around: Surroundings) -> Feed:
    speed = settings.options.speed
    return feed if speed is None else PacedFeed(feed, speed, around.runtime, around.cancel, around.log)
