"""The typed configuration: defaults, channel sizes, hashes, and where the database is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tradebot.config import model
from tradebot.config.model import Config, config_hash, db_path, expand_home
from tradebot.config.validation import KEYS, build, flatten
from tradebot.core.errors import ConfigError
from tradebot.strategy.registry import unread_keys

REPO = Path(__file__).resolve().parents[3]


def result_hash(config: Config, replay: bool) -> str:
    """As a run takes it: without what the strategy does not read."""
    return model.result_hash(config, replay, unread_keys(config.strategy.name))


def changed(name: str, value: Any) -> Config:
    return build({name: value})


# Another valid value for every key.
OTHER: dict[str, Any] = {
    "mode": "PAPER", "live_armed": True, "app.symbol": "X/Y", "app.db_path": "x.db", "engine.ingest_mode": "replay",
    "engine.tick_interval_ms": 1, "engine.signal_every_n_ticks": 11, "engine.heartbeat_interval_secs": 1.0,
    "engine.run_seconds": 5.0, "engine.ws_url": "ws://localhost:9001", "engine.ws_url_file": "u",
    "engine.ws_source": "binance-btcusdt", "engine.sample_every": 2,
    "engine.replay_file": "x.jsonl", "risk_caps.max_exposure_usd": 1.0, "risk_caps.max_symbol_exposure_usd": 1.0,
    "risk_caps.max_open_orders": 1, "channels.tick_channel_size": 1, "channels.signal_channel_size": 1,
    "channels.persist_channel_size": 1, "persist.batch_size": 1, "persist.flush_interval_ms": 1,
    "persist.synchronous": "FULL", "persist.storage_retry_s": 1.0, "persist.drain_timeout_s": 1.0,
    "persist.spill_max_mb": 1,
    "strategy.name": "periodic", "strategy.short_window": 6, "strategy.long_window": 21, "strategy.desired_size": 1.0,
    "strategy.confidence": 0.5, "execution.fee_rate": 0.0, "execution.max_tick_age_ms": 1,
    "execution.order_type": "limit", "execution.limit_offset_bps": 5.0, "execution.post_only": True,
    "paper.latency_ms": 0, "paper.cancel_latency_ms": 0, "paper.participation": 1.0, "paper.slippage_bps": 1.0,
    "paper.queue": "front", "paper.market_timeout_ms": 1, "paper.on_gap": "cancel",
    "account.initial_balance": 1.0, "account.allow_short": True, "account.max_leverage": 2.0,
    "breakers.max_drawdown_pct": 1.0, "breakers.daily_loss_usd": 1.0, "breakers.losses_in_a_row": 1,
    "breakers.refusals_per_minute": 1, "breakers.orders_per_minute": 1, "breakers.stale_ms": 1,
    "breakers.cancel_open": True,
    "feed.connect_timeout_s": 1.0, "feed.idle_timeout_s": 1.0, "feed.ping_interval_s": 1.0,
    "feed.reconnect_budget_s": 1.0, "feed.backoff_max_s": 1.0, "feed.stable_after_s": 1.0, "feed.parse_error_limit": 1,
    "feed.max_message_bytes": 64, "feed.max_symbols": 1, "feed.history": "keep",
    "feed.max_price_jump": 2.0,
    "metrics.address": "::1", "metrics.port": 9464, "metrics.hosts": "a.example",
    "notify.webhook_url": "http://localhost:9000/hook",
    "notify.webhook_url_file": "u",
    "notify.link_lost_s": 1.0, "notify.refusals_per_minute": 1,
}  # fmt: skip


def test_the_other_values_cover_every_key_and_differ() -> None:
    assert list(OTHER) == list(KEYS)
    defaults = flatten(Config())
    assert [name for name, value in OTHER.items() if value == defaults[name]] == []


def test_shadow_is_the_default_and_live_is_not_armed() -> None:
    """G0: shadow by default, live fails closed."""
    assert (Config().mode, Config().live_armed, Config().engine.ingest_mode) == ("SHADOW", False, "synthetic")


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Config().mode = "LIVE"  # type: ignore[misc]


def test_channel_sizes_by_kind_of_feed() -> None:
    """S6: 256/64/512 for push feeds, 16 384 each for a replay, and what is set always holds."""
    assert Config().channels.sizes(push=True) == (256, 64, 512)
    assert Config().channels.sizes(push=False) == (16_384,) * 3
    one = changed("channels.signal_channel_size", 7).channels
    assert one.sizes(push=True) == (256, 7, 512)
    assert one.sizes(push=False) == (16_384, 7, 16_384)


def test_flatten_and_build_are_inverse() -> None:
    config = build(OTHER)
    assert flatten(config) == OTHER
    assert build(flatten(config)) == config


@pytest.mark.parametrize("name", KEYS)
def test_config_hash_sees_all_but_mode_and_live_armed(name: str) -> None:
    """G1: the hash that the LIVE gate compares."""
    same = config_hash(changed(name, OTHER[name])) == config_hash(Config())
    assert same == (name in ("mode", "live_armed"))


COUNTED = {
    "mode", "engine.sample_every", "feed.history", "risk_caps.max_exposure_usd", "risk_caps.max_symbol_exposure_usd",
    "risk_caps.max_open_orders", "strategy.name", "strategy.short_window", "strategy.long_window",
    "strategy.desired_size", "strategy.confidence", "execution.fee_rate", "execution.order_type",
    "execution.limit_offset_bps", "execution.post_only", "paper.latency_ms", "paper.cancel_latency_ms",
    "paper.participation", "paper.slippage_bps", "paper.queue", "paper.market_timeout_ms", "paper.on_gap",
    "account.initial_balance", "account.allow_short", "account.max_leverage",
    "breakers.max_drawdown_pct", "breakers.daily_loss_usd", "breakers.losses_in_a_row", "breakers.refusals_per_minute",
    "breakers.orders_per_minute", "breakers.stale_ms", "breakers.cancel_open",
}  # fmt: skip


@pytest.mark.parametrize("name", KEYS)
def test_result_hash_of_a_replay_sees_only_what_can_change_a_result(name: str) -> None:
    """S8, I3: a replay's ids do not depend on paths, sizes, batching or patience."""
    differs = result_hash(changed(name, OTHER[name]), replay=True) != result_hash(Config(), replay=True)
    assert differs == (name in COUNTED)


def test_tick_age_counts_only_outside_replays() -> None:
    old, new = Config(), changed("execution.max_tick_age_ms", 5)
    assert result_hash(old, replay=True) == result_hash(new, replay=True)
    assert result_hash(old, replay=False) != result_hash(new, replay=False)


def test_result_hash_counts_what_the_strategy_reads() -> None:
    periodic = {"strategy.name": "periodic"}
    base = result_hash(build(periodic), replay=True)
    assert result_hash(build(periodic | {"engine.signal_every_n_ticks": 3}), replay=True) != base
    assert result_hash(build(periodic | {"strategy.short_window": 3}), replay=True) == base
    # A strategy that nobody has looked at counts as reading everything.
    unknown = {"strategy.name": "unknown"}
    base = result_hash(build(unknown), replay=True)
    assert result_hash(build(unknown | {"engine.signal_every_n_ticks": 3}), replay=True) != base
    assert result_hash(build(unknown | {"strategy.short_window": 3}), replay=True) != base


def test_a_later_key_that_is_not_used_changes_no_hash() -> None:
    """The hashes of the first release, from before any later key existed: old run ids and proof bundles stay valid."""
    assert config_hash(Config()) == "6f8a2e5a85b9"
    assert result_hash(Config(), replay=True) == "1096b6a3f856"


def test_of_secrets_only_the_fact_counts() -> None:
    """A secret that is renewed changes nothing, and no hash in logs and databases is made of one."""
    key = "notify.webhook_url"
    first, second = (config_hash(changed(key, f"https://h/{secret}")) for secret in ("one", "two"))
    assert first == second != config_hash(Config())
    key = "engine.ws_url"
    first, second, other = (config_hash(changed(key, f"wss://{url}")) for url in ("a:b@h/", "c:d@h/", "a:b@g/"))
    assert first == second != other


def test_hashes_do_not_tell_5_from_5_0() -> None:
    caps = msgspec.structs.replace(Config().risk_caps, max_exposure_usd=5)
    by_hand = msgspec.structs.replace(Config(), risk_caps=caps)
    checked = changed("risk_caps.max_exposure_usd", 5.0)
    assert config_hash(by_hand) == config_hash(checked)
    assert result_hash(by_hand, replay=True) == result_hash(checked, replay=True)


def test_hashes_are_the_same_in_every_process() -> None:
    """S8: independent of PYTHONHASHSEED. The literal also holds every Python version to the same digest."""
    code = (
        "from tradebot.config.model import *; from tradebot.strategy.registry import unread_keys;"
        " print(config_hash(Config()), result_hash(Config(), True, unread_keys('sma_crossover')))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=REPO,
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert printed == {f"{config_hash(Config())} {result_hash(Config(), replay=True)}\n"}
    # Changing this literal means: a replay stored by an earlier version gets a new run id when it is replayed again.
    assert result_hash(Config(), replay=True) == "1096b6a3f856"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HOME": "/h"}, "/h/.local/state/tradebot/tradebot.db"),
        ({"HOME": "/h", "XDG_STATE_HOME": "/s"}, "/s/tradebot/tradebot.db"),
        ({"HOME": "/h", "XDG_STATE_HOME": ""}, "/h/.local/state/tradebot/tradebot.db"),
        ({"HOME": "/h", "XDG_STATE_HOME": "relative"}, "/h/.local/state/tradebot/tradebot.db"),
        ({"STATE_DIRECTORY": "/var/lib/tradebot", "XDG_STATE_HOME": "/s"}, "/var/lib/tradebot/tradebot.db"),
        ({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}, "/var/lib/a/tradebot.db"),
        ({"STATE_DIRECTORY": "", "HOME": "/h"}, "/h/.local/state/tradebot/tradebot.db"),
    ],
)
def test_default_database(environ: dict[str, str], expected: str) -> None:
    assert db_path(Config(), environ) == Path(expected)


def test_configured_database_wins() -> None:
    assert db_path(changed("app.db_path", "here.db"), {"STATE_DIRECTORY": "/s"}) == Path("here.db")


def test_tilde_means_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    assert expand_home("~/x") == "/h/x"
    assert expand_home("a/~/x") == "a/~/x"
    with pytest.raises(ConfigError, match="no such home directory"):
        expand_home("~nobody-is-called-this/x")
