"""The live feed against a scripted link: what it says, when it tries again, and when it gives up.

Clock, transport and exchange are the test's own; time moves only where the feed waits or a script says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.unit.feeds.clock import ClockMovingStop, HandClock
from tests.unit.store_helpers import Logged
from tests.unit.talk import START_MS, Talk
from tradebot.config.model import FeedConfig
from tradebot.core.cancellation import Cancellation
from tradebot.core.errors import ConfigError, ExitCode, NetworkError, ParseError
from tradebot.core.events import Notice
from tradebot.core.log_events import LogEvent
from tradebot.feeds.base import READ_WAIT_S, FeedBatch
from tradebot.feeds.exchanges.base import Exchange, Unparseable
from tradebot.feeds.frame_reader import FrameReader
from tradebot.feeds.price_band import PriceBand
from tradebot.feeds.quarantine import Quarantine
from tradebot.feeds.sequence_tracker import SequenceGuard
from tradebot.feeds.websocket.feed import FeedTarget, WebSocketFeed
from tradebot.feeds.websocket.retry_after import RetryAfterFile
from tradebot.feeds.websocket.transport import ConnectFailed, ConnectionLimits, ConnectionLost, Frame

URL = "wss://user:hunter2@example.org/ws?api_key=hunter2"
MASKED = "wss://***@example.org/ws?api_key=***"
CONFIG = FeedConfig(
    connect_timeout_s=10.0, idle_timeout_s=30.0, ping_interval_s=10.0, reconnect_budget_s=120.0, backoff_max_s=30.0,
    stable_after_s=30.0, parse_error_limit=3,
)  # fmt: skip


class Clock(HandClock):
    """A clock whose random tokens are known."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = "80000000"  # a fraction of one half

    def token(self) -> str:
        return self.tokens


class Chatty(Talk):
    """Has a ping of its own."""

    def keepalive(self) -> str | None:
        return "ping?"


class Silent(Talk):
    """Confirms nothing."""

    acknowledges = False


class Tokened(Talk):
    """Asks for a token before each connection."""

    token_url = "https://user:hunter2@example.org/token"

    def connection_url(self, url: str, symbols: Sequence[str]) -> str:
        return f"{url}&for={','.join(symbols)}"

    def url_with_token(self, url: str, answer: str) -> str:
        if answer == "none":
            raise Unparseable("no token in it")
        return f"{url}&token={answer}"


def text(*words: str) -> list[Frame]:
    return [Frame("text", word) for word in words]


Step = list[Frame] | float | ConnectionLost


def every(seconds: float, frames: list[Frame]) -> list[Step]:
    """The same frames again and again, for two minutes."""
    steps: list[Step] = []
    for _ in range(round(120 / seconds)):
        steps += [frames, seconds]
    return steps


class Line:
    """A connection that plays a script: frames at once, a number of seconds without any, or its loss.

    When the script is over nothing comes any more. What is sent is noted with its time; `breaks_at` is the number of
    the send (from 1) that finds the connection lost.
    """

    def __init__(self, *script: Step, breaks_at: int = 0) -> None:
        self.script = list(script)
        self.breaks_at = breaks_at
        self.clock = Clock()
        self.sent: list[tuple[float, object]] = []
        self.waits: list[float] = []
        self.is_over = False

    def receive(self, timeout_s: float) -> list[Frame]:
        assert not self.is_over, "used after its end"
        self.waits.append(timeout_s)
        if not self.script or isinstance(self.script[0], float):
            return self._nothing(timeout_s)
        found = self.script.pop(0)
        if isinstance(found, ConnectionLost):
            self.is_over = True
            raise found
        assert isinstance(found, list)
        return found

    def _nothing(self, timeout_s: float) -> list[Frame]:
        if self.script:
            left_s = float(self.script[0])  # type: ignore[arg-type]
            if left_s <= timeout_s:
                self.script.pop(0)
            else:
                self.script[0] = left_s - timeout_s
            timeout_s = min(left_s, timeout_s)
        self.clock.seconds += timeout_s
        return []

    def _send(self, what: object) -> None:
        assert not self.is_over, "used after its end"
        self.sent.append((self.clock.seconds - 50.0, what))
        if len(self.sent) == self.breaks_at:
            self.is_over = True
            raise ConnectionLost("the connection broke: broken pipe", 1006)

    def send_text(self, text: str) -> None:
        self._send(text)

    def ping(self) -> None:
        self._send("<ping>")

    def close(self, code: int = 1000) -> None:
        assert not self.is_over, "closed after its end"
        self.sent.append((self.clock.seconds - 50.0, code))
        self.is_over = True

    @property
    def said(self) -> list[object]:
        return [what for _at, what in self.sent]


Outcome = Line | ConnectFailed | Callable[[], Any]


class Network:
    """A transport with the outcomes of attempts in their order; after them all are refused. An attempt takes 1 s."""

    def __init__(self, clock: Clock, outcomes: Sequence[Outcome], answers: Sequence[str | ConnectFailed] = ()) -> None:
        self.clock = clock
        self.outcomes = list(outcomes)
        self.answers = list(answers)
        self.dialled: list[tuple[float, str, float]] = []
        self.fetched: list[tuple[str, float]] = []
        self.max_message_bytes = 0

    def connect(self, url: str, limits: ConnectionLimits, cancel: Cancellation) -> Line:
        assert not cancel.is_requested()
        self.dialled.append((self.clock.seconds - 50.0, url, limits.connect_timeout_s))
        self.max_message_bytes = limits.max_message_bytes
        self.clock.seconds += min(1.0, limits.connect_timeout_s)
        outcome = self.outcomes.pop(0) if self.outcomes else ConnectFailed("connection refused")
        if not isinstance(outcome, Line | ConnectFailed):
            outcome = outcome()
        if isinstance(outcome, ConnectFailed):
            raise outcome
        assert isinstance(outcome, Line)
        outcome.clock = self.clock
        return outcome

    def fetch(self, url: str, limits: ConnectionLimits, cancel: Cancellation) -> str:
        self.fetched.append((url, limits.connect_timeout_s))
        self.clock.seconds += 2.0
        answer = self.answers.pop(0)
        if isinstance(answer, ConnectFailed):
            raise answer
        return answer

    @property
    def dialled_s(self) -> list[float]:
        return [at for at, _url, _timeout in self.dialled]


class Rig:
    """A feed with everything around it."""

    def __init__(
        self,
        tmp_path: Path,
        *outcomes: Outcome,
        exchange: type[Exchange] = Talk,
        config: FeedConfig = CONFIG,
        symbols: tuple[str, ...] = ("A", "B"),
        answers: Sequence[str | ConnectFailed] = (),
        symbols_max: int = 10,
        quarantine: Quarantine | None = None,
    ) -> None:
        self.clock = Clock()
        self.stop = ClockMovingStop(self.clock)
        self.network = Network(self.clock, outcomes, answers)
        self.logged = Logged(self.clock)
        self.quarantine = Quarantine(tmp_path / "q.jsonl") if quarantine is None else quarantine
        self.feed = WebSocketFeed(
            FeedTarget(URL, symbols), config, self.network,
            FrameReader(exchange, config.history, SequenceGuard(symbols_max), PriceBand(config.max_price_jump)),
            self.quarantine, RetryAfterFile(tmp_path / "r.json", "there:"), self.clock, self.stop, self.logged.log,
        )  # fmt: skip

    def until(self, done: Callable[[], bool], most: int = 5000) -> list[FeedBatch]:
        """The batches that say something, up to the one after which `done`."""
        found = []
        for _ in range(most):
            batch = self.feed.read()
            if batch != FeedBatch([]):
                found.append(batch)
            if done():
                return found
        raise AssertionError(f"not within {most} reads; so far {found}")

    def story(self, notices: int) -> list[object]:
        """What the feed says in its order, ticks by their seq, up to so many notices."""
        said: list[object] = []
        while sum(isinstance(each, Notice) for each in said) < notices:
            batch = self.until(lambda: True, 1)
            for one in batch:
                for index in range(len(one.ticks) + 1):
                    said += [notice for at, notice in one.notices if at == index]
                    said += [each.seq for each in one.ticks[index : index + 1]]
                said += ["malformed"] * one.malformed
            assert self.clock.seconds < 5000, said
        return said

    def after(self, seconds: float) -> list[FeedBatch]:
        """The batches that say something until so many seconds after the start."""
        return self.until(lambda: self.clock.seconds >= 50.0 + seconds)

    def close(self) -> None:
        self.feed.close()
        self.logged.log.close()

    @property
    def everything_said(self) -> str:
        return json.dumps(self.logged.lines())


Make = Callable[..., Rig]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Make]:
    made: list[Rig] = []

    def make(*outcomes: Outcome, **more: Any) -> Rig:
        made.append(Rig(tmp_path, *outcomes, **more))
        return made[-1]

    yield make
    for each in made:
        each.close()
        assert "hunter2" not in each.everything_said, "credentials in the log"


def kinds(story: Sequence[object]) -> list[object]:
    return [each.kind if isinstance(each, Notice) else each for each in story]


def lost(reason: str = "the peer went away", code: int = 1006) -> ConnectionLost:
    return ConnectionLost(reason, code)


class TestTheLink:
    def test_nothing_is_dialled_before_the_first_read(self, rig: Make) -> None:
        """And then at once, with the limits of the configuration; each symbol is asked for."""
        line = Line()
        made = rig(line)
        assert made.network.dialled == []
        assert made.feed.status().log_fields() == {
            "link": "down",
            "frames": 0,
            "last_frame_age_ms": None,
            "overdue_ms": 0,
            "retry_after_s": None,
        }
        assert made.feed.read().notices == ((0, Notice("LINK_UP", START_MS + 1000, MASKED)),)
        assert made.network.dialled == [(0.0, URL, 10.0)]
        assert made.network.max_message_bytes == CONFIG.max_message_bytes
        assert line.said == ["sub A", "sub B"]
        assert (made.feed.push, made.feed.total) == (True, None)

    def test_lost_and_restored_come_in_band_after_the_frames_before_them(self, rig: Make) -> None:
        """Link lost and restored travel in-band, in sequence."""
        first = Line(text("ack", "t A 1", "t A 2"), 5.0, text("t A 3"), lost(code=1001))
        made = rig(first, Line(text("t A 4")))
        story = made.story(3)
        assert kinds(story) == ["LINK_UP", 1, 2, 3, "LINK_LOST", "LINK_RESTORED"]
        down, back = (each for each in story[-2:] if isinstance(each, Notice))
        assert (down.ts, down.detail) == (START_MS + 6000, "the peer went away (close code 1001)")
        assert (back.ts, back.detail) == (START_MS + 7000, f"{MASKED} after 1.000 s, attempt 1")

    def test_a_gap_that_an_outage_left_stands_before_the_trade_after_it(self, rig: Make) -> None:
        """Sequence sense across reconnects: what is sent again is a duplicate, what is missing a gap."""
        made = rig(Line(text("t A 1 2 3"), lost()), Line(text("t A 2 3"), text("t A 4 8 9")))
        batches = made.until(lambda: made.feed.position == 3)
        assert sum(batch.duplicates for batch in batches) == 2
        after = batches[-1]
        assert [each.seq for each in after.ticks] == [4, 8, 9]
        assert [(at, notice.kind, notice.symbol, notice.missing) for at, notice in after.notices] == [
            (1, "GAP", "A", 3)
        ]

    def test_each_connection_has_an_adapter_of_its_own(self, rig: Make) -> None:
        made = rig(Line(lost()), ConnectFailed("no"), Line())
        before = Talk.made
        made.story(3)
        assert Talk.made - before == 3

    def test_one_frame_a_batch(self, rig: Make) -> None:
        """G5: an overload costs what is left of one frame, and no more."""
        made = rig(Line(text("t A 1 2", "t B 1", "beat", "book", "t A 3")))
        sizes = [len(batch.ticks) for batch in made.until(lambda: made.feed.position == 5)]
        assert sizes == [0, 2, 1, 1]

    def test_history_is_counted_or_kept(self, rig: Make) -> None:
        made = rig(Line(text("h A 1 2", "t A 3")))
        batches = made.until(lambda: made.feed.position == 2)
        assert [(len(batch.ticks), batch.history_dropped) for batch in batches[1:]] == [(0, 2), (1, 0)]
        made = rig(Line(text("h A 1 2", "t A 3")), config=replace(CONFIG, history="keep"))
        batches = made.until(lambda: made.feed.position == 2)
        assert [(len(batch.ticks), batch.history_dropped) for batch in batches[1:]] == [(2, 0), (1, 0)]

    def test_a_loss_found_while_subscribing(self, rig: Make) -> None:
        """The link was up, for the moment: both are said, in their order, and the first retry is made at once."""
        made = rig(Line(breaks_at=2), Line(text("t A 1")))
        story = made.story(3)
        assert kinds(story) == ["LINK_UP", "LINK_LOST", "LINK_RESTORED"]
        assert made.network.dialled_s == [0.0, 1.0]

    def test_a_loss_found_by_a_ping_is_told_after_the_frames(self, rig: Make) -> None:
        line = Line(text("ack"), breaks_at=3)
        made = rig(line, Line())
        made.until(lambda: made.feed.position == 1)
        made.clock.seconds = 61.0  # the ping is due when the next frames come
        line.script = [text("t A 1", "t A 2")]
        assert kinds(made.story(2)) == [1, 2, "LINK_LOST", "LINK_RESTORED"]
        assert line.said == ["sub A", "sub B", "<ping>"]

    def test_a_loss_found_by_a_reply_is_told_after_the_frames(self, rig: Make) -> None:
        """And nothing is sent on that connection any more."""
        line = Line(text("t A 1", "hello?", "hello?", "t A 2"), breaks_at=3)
        made = rig(line, Line(text("t A 3"), 5.0, lost()))
        assert kinds(made.story(4)) == ["LINK_UP", 1, 2, "LINK_LOST", "LINK_RESTORED", 3, "LINK_LOST"]
        assert line.said == ["sub A", "sub B", "hello!"]

    def test_a_reply_that_the_exchange_wants_is_sent(self, rig: Make) -> None:
        line = Line(text("hello?"))
        made = rig(line)
        made.until(lambda: made.feed.position == 1)
        assert line.said == ["sub A", "sub B", "hello!"]

    def test_a_long_reason_is_cut(self, rig: Make) -> None:
        made = rig(Line(lost("x" * 5000)))
        (_up, down) = made.story(2)
        assert isinstance(down, Notice) and len(down.detail) == 300

    def test_what_an_exchange_says_is_logged(self, rig: Make) -> None:
        made = rig(Line(text("ack A", "error no such symbol")))
        made.until(lambda: made.feed.position == 2)
        assert made.logged.one(LogEvent.SUBSCRIBED)["detail"] == "A"
        assert made.logged.one(LogEvent.EXCHANGE_ERROR)["detail"] == "no such symbol"


class TestConnecting:
    def test_at_once_then_backing_off_until_the_budget_is_over(self, rig: Make) -> None:
        """Exit 10: no completed handshake within the budget; delays are half (the fraction) of 1, 2, 4, 8, 16, 30 s."""
        made = rig(Line(text("ack"), 20.0, text("beat"), 20.0, lost()))
        with pytest.raises(NetworkError) as caught:
            made.until(lambda: False)
        assert caught.value.exit_code is ExitCode.NETWORK
        dialled = made.network.dialled_s
        pauses = [round(after - before - 1.0, 3) for before, after in pairwise(dialled[1:])]
        assert dialled[1] == 41.0, "the first retry is made at once"
        assert pauses[:8] == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]
        assert made.clock.seconds - 50.0 == pytest.approx(41.0 + 120.0, abs=0.6)
        assert str(caught.value) == (
            f"no connection to {MASKED} within feed.reconnect_budget_s (120 s); the last attempt: connection refused"
        )

    def test_each_failure_is_logged(self, rig: Make) -> None:
        made = rig(ConnectFailed("the server answered 503", 503, 7.0))
        made.until(lambda: len(made.network.dialled) == 2)
        first, second = made.logged.all(LogEvent.CONNECT_FAILED)
        assert first == {
            "message": "connecting failed", "event": LogEvent.CONNECT_FAILED, "url": MASKED, "gives_up_in_s": 126.0,
            "reason": "the server answered 503", "status": 503, "attempt": 1, "retry_in_s": 7.0,
        }  # fmt: skip
        assert (second["status"], second["attempt"]) == (None, 2)

    def test_a_servers_retry_after_is_honoured(self, rig: Make) -> None:
        made = rig(ConnectFailed("429", 429, 20.0), Line())
        made.story(1)
        assert made.network.dialled_s == [0.0, 21.0]

    def test_a_restart_keeps_to_a_servers_retry_after(self, rig: Make) -> None:
        """Also beyond the budget (120 s): there is no exit 10 while a server is left alone as it asked."""
        first = rig(ConnectFailed("429", 429, 600.0))
        first.until(lambda: first.clock.seconds >= 200.0)
        assert first.feed.status().retry_after_s == pytest.approx(450.0, abs=1)
        again = rig(Line())
        again.clock.seconds = first.clock.seconds
        again.story(1)
        assert again.network.dialled_s[0] == pytest.approx(600.0, abs=1)
        assert again.feed.status().retry_after_s is None
        third = rig(Line())
        third.story(1)
        assert third.network.dialled_s == [0.0]

    def test_the_jitter_is_the_runtimes_randomness(self, rig: Make) -> None:
        for tokens, pause_s in (("00000000", 0.0), ("ffffffff", 1.0)):
            made = rig(ConnectFailed("no"))
            made.clock.tokens = tokens
            made.until(lambda: len(made.network.dialled) == 2)  # noqa: B023
            assert made.network.dialled_s[1] == pytest.approx(1.0 + pause_s)

    def test_waits_in_small_steps(self, rig: Make) -> None:
        """A stop is noticed in time: Stop.wait insists on READ_WAIT_S at most."""
        made = rig(ConnectFailed("no", 503, 20.0))
        made.feed.read()
        before_s = made.clock.seconds
        assert made.feed.read() == FeedBatch([])
        assert made.clock.seconds - before_s == READ_WAIT_S

    def test_the_last_attempt_gets_what_is_left_of_the_budget(self, rig: Make) -> None:
        made = rig(config=replace(CONFIG, reconnect_budget_s=4.0))
        with pytest.raises(NetworkError):
            made.until(lambda: False)
        assert [timeout for at, _url, timeout in made.network.dialled] == [
            pytest.approx(min(10.0, max(4.0 - at, 0.1))) for at in made.network.dialled_s
        ]
        assert len(made.network.dialled) >= 3

    def test_an_attempt_cut_short_by_the_budget_does_not_hide_the_reason(self, rig: Make) -> None:
        fails = [ConnectFailed("certificate expired")] + [ConnectFailed("no answer within 0.1 s")] * 9
        made = rig(*fails, config=replace(CONFIG, reconnect_budget_s=2.2))
        with pytest.raises(NetworkError, match="the last attempt: certificate expired"):
            made.until(lambda: False)
        assert len(made.network.dialled) == 2

    def test_the_budget_starts_anew_with_each_handshake(self, rig: Make) -> None:
        config = replace(CONFIG, reconnect_budget_s=8.0, backoff_max_s=1.0)
        fails = [ConnectFailed("no")] * 3
        made = rig(*fails, Line(lost()), *fails, Line(lost()), *fails, Line(text("t A 1")), config=config)
        story = made.story(5)
        assert kinds(story) == ["LINK_UP", "LINK_LOST", "LINK_RESTORED", "LINK_LOST", "LINK_RESTORED"]
        assert made.clock.seconds > 50.0 + 8.0

    def test_a_server_that_accepts_and_hangs_up_is_not_stormed(self, rig: Make) -> None:
        """The backoff waits for stability, not for a handshake."""
        made = rig(*[Line(lost()) for _ in range(6)])
        made.story(12)
        pauses = [b - a - 1.0 for a, b in pairwise(made.network.dialled_s)]
        assert [round(each, 3) for each in pauses] == [0.0, 0.5, 1.0, 2.0, 4.0]

    def test_a_stop_during_an_attempt_is_silent(self, rig: Make) -> None:
        def interrupted() -> ConnectFailed:
            made.stop.request()
            return ConnectFailed("given up: the run is stopping")

        made = rig(interrupted)
        assert made.feed.read() == FeedBatch([])
        assert made.logged.lines() == []

    def test_a_token_is_asked_for_before_each_connection(self, rig: Make) -> None:
        made = rig(Line(lost()), Line(), exchange=Tokened, answers=["one", "two"])
        made.story(3)
        assert [url for url, _timeout in made.network.fetched] == ["https://user:hunter2@example.org/token"] * 2
        assert [url for _at, url, _timeout in made.network.dialled] == [
            f"{URL}&for=A,B&token=one", f"{URL}&for=A,B&token=two",
        ]  # fmt: skip

    def test_no_token_is_a_failed_attempt(self, rig: Make) -> None:
        made = rig(Line(), exchange=Tokened, answers=[ConnectFailed("401", 401), "none", "good"])
        made.story(1)
        first, second = made.logged.all(LogEvent.CONNECT_FAILED)
        assert (first["reason"], first["status"]) == ("401", 401)
        assert second["reason"] == "the token that https://***@example.org/token sent cannot be parsed: no token in it"
        assert len(made.network.dialled) == 1

    def test_no_credentials_in_what_ends_the_run(self, rig: Make) -> None:
        made = rig(exchange=Tokened, answers=["none"] * 99, config=replace(CONFIG, reconnect_budget_s=5.0))
        with pytest.raises(NetworkError) as caught:
            made.until(lambda: False)
        assert "https://***@example.org/token" in str(caught.value)
        assert "hunter2" not in str(caught.value)

    def test_token_and_handshake_share_the_budget(self, rig: Make) -> None:
        made = rig(exchange=Tokened, answers=["t"] * 9, config=replace(CONFIG, reconnect_budget_s=5.0))
        made.feed.read()
        assert made.network.fetched == [("https://user:hunter2@example.org/token", 5.0)]
        assert [timeout for _at, _url, timeout in made.network.dialled] == [3.0]


class TestLiveness:
    def test_pings_at_their_interval_whether_or_not_frames_come(self, rig: Make) -> None:
        for apart_s in (0.3, 7.0):
            line = Line(text("ack"), *every(apart_s, text("beat")))
            made = rig(line)
            made.after(34.0)
            pings = [at for at, what in line.sent if what == "<ping>"]
            assert pings == pytest.approx([11.0, 21.0, 31.0], abs=0.51)

    def test_an_exchange_with_a_ping_of_its_own_gets_both(self, rig: Make) -> None:
        line = Line(text("ack"))
        made = rig(line, exchange=Chatty)
        made.after(12.0)
        assert line.sent[2:] == [(11.0, "<ping>"), (11.0, "ping?")]

    def test_a_mute_peer_is_given_up_at_its_deadline(self, rig: Make) -> None:
        """Detected within the deadline, closed with 1001, and recovered."""
        line = Line(text("ack"), 5.0, text("beat"))
        made = rig(line, Line())
        story = made.story(3)
        assert kinds(story) == ["LINK_UP", "LINK_LOST", "LINK_RESTORED"]
        down = story[1]
        assert isinstance(down, Notice)
        assert (down.detail, down.ts) == ("no frame for 30 s", START_MS + 36_000)
        assert line.sent[-1] == (36.0, 1001)

    def test_pongs_are_life(self, rig: Make) -> None:
        """A quiet market is not a dead feed."""
        line = Line(text("ack"), *every(20.0, [Frame("pong")]))
        made = rig(line)
        assert [batch.notices[0][1].kind for batch in made.after(120.0)] == ["LINK_UP"]
        assert made.feed.status().link == "up"

    def test_a_subscription_that_is_never_confirmed(self, rig: Make) -> None:
        """Heartbeats and errors are no confirmation."""
        line = Line(*every(5.0, text("beat", "error no such symbol", "book")))
        made = rig(line)
        story = made.story(3)
        assert isinstance(story[1], Notice) and (story[1].kind, story[1].detail) == (
            "EXCHANGE_NOTICE",
            "no such symbol",
        )
        down = story[2]
        assert isinstance(down, Notice)
        assert (down.detail, down.ts) == ("subscription not confirmed within 30 s", START_MS + 31_000)
        assert line.sent[-1] == (31.0, 1001)

    @pytest.mark.parametrize("confirmation", ["ack", "t A 1", "h A 1"])
    def test_an_ack_or_any_trade_confirms(self, rig: Make, confirmation: str) -> None:
        made = rig(Line(text(confirmation), *every(5.0, text("beat"))))
        made.after(60.0)
        assert made.feed.status().link == "up"

    def test_a_trade_that_there_is_no_room_for_confirms(self, rig: Make) -> None:
        made = rig(Line(text("t A 1"), lost()), Line(text("t B 1"), *every(5.0, text("beat"))), symbols_max=1)
        made.after(60.0)
        assert len(made.network.dialled) == 2
        assert made.feed.status().link == "up"

    @pytest.mark.parametrize("more", [{"exchange": Silent}, {"symbols": ()}])
    def test_where_nothing_is_confirmed_nothing_is_waited_for(self, rig: Make, more: dict[str, Any]) -> None:
        made = rig(Line(*every(5.0, text("beat"))), **more)
        made.after(60.0)
        assert made.feed.status().link == "up"

    def test_a_receive_never_waits_past_a_deadline_or_the_read_wait(self, rig: Make) -> None:
        line = Line(text("ack"), 0.3, text("beat"))
        made = rig(line)
        made.after(40.0)
        assert max(line.waits) == READ_WAIT_S
        at, code = line.sent[-1]
        assert (round(at, 3), code) == (31.3, 1001)

    def test_status(self, rig: Make) -> None:
        """What the heartbeat and the stall detector read."""
        made = rig(Line(0.5, text("ack", "t A 1"), 2.0, lost()))
        made.feed.read()
        assert made.feed.status().log_fields() == {
            "link": "up",
            "frames": 0,
            "last_frame_age_ms": 0,
            "overdue_ms": 0,
            "retry_after_s": None,
        }
        made.until(lambda: made.clock.seconds >= 53.5)
        assert made.feed.status().log_fields() == {
            "link": "up", "frames": 2, "last_frame_age_ms": 2000, "overdue_ms": 0, "retry_after_s": None,
        }  # fmt: skip
        made.feed.read()
        assert made.feed.status().link == "down" and made.feed.status().overdue_ms == 0
        assert made.feed.position == 2


class TestMalformed:
    def test_is_counted_noted_and_kept(self, rig: Make, tmp_path: Path) -> None:
        made = rig(Line(text("t A 1", "what", "t A 2")))
        batches = made.until(lambda: made.feed.position == 3)
        assert [(len(batch.ticks), batch.malformed) for batch in batches[1:]] == [(1, 0), (0, 1), (1, 0)]
        (note,) = batches[2].notes
        assert (note.line, note.reason) == (2, "no such word, of 4 characters")
        kept = json.loads((tmp_path / "q.jsonl").read_text())
        assert kept == {
            "received_ms": START_MS + 1000, "reason": "no such word, of 4 characters", "bytes": 4, "text": "what",
        }  # fmt: skip

    def test_a_binary_frame_is_malformed(self, rig: Make, tmp_path: Path) -> None:
        made = rig(Line([Frame("binary", data=b"\xff\x00")]))
        batch = made.until(lambda: made.feed.position == 1)[-1]
        assert (batch.malformed, batch.notes[0].line, batch.notes[0].reason) == (1, 1, "a binary frame")
        assert json.loads((tmp_path / "q.jsonl").read_text())["base64"] == "/wA="

    def test_control_frames_are_not_counted(self, rig: Make) -> None:
        made = rig(Line([Frame("ping"), Frame("pong", data=b"x"), *text("t A 1")]))
        batches = made.until(lambda: made.feed.position == 1)
        assert [batch.malformed for batch in batches] == [0, 0]

    def test_consecutive_ones_up_to_the_limit_end_the_run(self, rig: Make, tmp_path: Path) -> None:
        """Exit 11, after the batch that counted the last of them."""
        made = rig(Line(text("x", "y", "t A 1", "x", "y", "z", "t A 2")))
        batches = made.until(lambda: made.feed.position == 6)
        assert sum(batch.malformed for batch in batches) == 5
        assert sum(len(batch.ticks) for batch in batches) == 1
        for _ in range(2):
            with pytest.raises(ParseError) as caught:
                made.feed.read()
        assert caught.value.exit_code is ExitCode.PARSE
        assert str(caught.value) == (
            f"3 frames in a row from {MASKED} could not be parsed (feed.parse_error_limit); the last: no such word,"
            f" of 1 characters; the newest are kept in {tmp_path / 'q.jsonl'}"
        )

    @pytest.mark.parametrize("word", ["beat", "book", "ack", "error", "hello?"])
    def test_any_frame_that_is_understood_ends_the_row(self, rig: Make, word: str) -> None:
        """Frames of other channels are ignored, never malformed."""
        made = rig(Line(text("x", "y", word, "x", "y", word)))
        batches = made.until(lambda: made.feed.position == 6)
        assert sum(batch.malformed for batch in batches) == 4
        made.feed.read()

    def test_the_row_goes_on_across_a_reconnect(self, rig: Make) -> None:
        made = rig(Line(text("x", "y"), lost()), Line(text("z")))
        with pytest.raises(ParseError):
            made.until(lambda: False)

    def test_no_limit(self, rig: Make) -> None:
        made = rig(Line(text(*"x" * 500)), config=replace(CONFIG, parse_error_limit=0))
        assert sum(batch.malformed for batch in made.until(lambda: made.feed.position == 500)) == 500

    def test_one_note_a_second_and_the_count_of_the_rest(self, rig: Make) -> None:
        line = Line(text(*"x" * 5), 0.75, text(*"x" * 4), 0.5, text("x"), 20.0)
        made = rig(line, config=replace(CONFIG, parse_error_limit=0))
        batches = made.until(lambda: made.feed.position == 10)
        assert sum(batch.malformed for batch in batches) == 10
        assert [note.line for batch in batches for note in batch.notes] == [1, 10]
        assert [each["frames"] for each in made.logged.all(LogEvent.MALFORMED_SUPPRESSED)] == [8]

    def test_the_rest_is_told_when_the_garbage_has_ended(self, rig: Make) -> None:
        made = rig(Line(text(*"x" * 5), 5.0), config=replace(CONFIG, parse_error_limit=0))
        made.after(1.5)
        assert made.logged.all(LogEvent.MALFORMED_SUPPRESSED) == []
        made.after(3.0)
        assert made.logged.one(LogEvent.MALFORMED_SUPPRESSED)["frames"] == 4

    def test_the_rest_is_told_at_the_end(self, rig: Make) -> None:
        made = rig(Line(text(*"x" * 5)), config=replace(CONFIG, parse_error_limit=0))
        made.until(lambda: made.feed.position == 5)
        made.feed.close()
        made.feed.close()
        assert made.logged.one(LogEvent.MALFORMED_SUPPRESSED)["frames"] == 4

    def test_trades_of_too_many_symbols(self, rig: Make) -> None:
        """What there is no room for is counted trade by trade; the others of the frame stay, and no limit is near."""
        line = Line(*[text(f"t A {number}", f"t B {number} {number + 100}") for number in range(1, 5)])
        made = rig(line, symbols_max=1)
        batches = made.until(lambda: made.feed.position == 8)
        assert sum(batch.malformed for batch in batches) == 8
        assert [each.seq for batch in batches for each in batch.ticks] == [1, 2, 3, 4]
        assert batches[2].notes[0].reason == "2 trades of more symbols than feed.max_symbols allows"

    def test_a_price_out_of_band_is_kept_with_its_reason(self, rig: Make) -> None:
        """The frame was understood, so it does not count towards parse_error_limit."""
        made = rig(Line(text("p A 1:100:0", "p A 2:5000:1 3:1:2", "p A 4:100:3")))
        batches = made.until(lambda: made.feed.position == 3)
        assert [(len(batch.ticks), batch.out_of_band, batch.malformed) for batch in batches[1:]] == [
            (1, 0, 0), (0, 2, 0), (1, 0, 0),
        ]  # fmt: skip
        [kept] = [json.loads(line) for line in made.quarantine.path.read_text().splitlines()]
        assert kept["text"] == "p A 2:5000:1 3:1:2"
        assert kept["reason"].startswith("price 5000.0 of A is 50 times above 100.0, the median")
        assert kept["reason"].endswith("(and 1 more of this frame)")

    def test_a_quarantine_that_fails_is_told_once(self, rig: Make, tmp_path: Path) -> None:
        made = rig(Line(text(*"xy")), quarantine=Quarantine(tmp_path))
        batches = made.until(lambda: made.feed.position == 2)
        assert sum(batch.malformed for batch in batches) == 2
        assert str(tmp_path) in made.logged.one(LogEvent.QUARANTINE_FAILED)["detail"]


class TestTheEnd:
    def test_close_says_goodbye_once(self, rig: Make) -> None:
        line = Line(text("ack"))
        made = rig(line)
        made.after(1.0)
        made.feed.close()
        made.feed.close()
        assert line.said == ["sub A", "sub B", 1000]
        assert made.feed.status().link == "down"

    def test_close_before_the_first_read(self, rig: Make) -> None:
        made = rig()
        made.feed.close()
        assert made.network.dialled == []

    def test_close_leaves_a_lost_connection_alone(self, rig: Make) -> None:
        """The wire asks that nothing is done with it any more; Line insists."""
        line = Line(text("hello?", "t A 1"), breaks_at=3)
        made = rig(line)
        made.until(lambda: made.feed.position == 2)
        assert line.is_over
        made.feed.close()

    def test_close_gives_the_quarantine_back(self, rig: Make) -> None:
        closed: list[bool] = []

        class Kept(Quarantine):
            def close(self) -> None:
                closed.append(True)
                super().close()

        made = rig(quarantine=Kept(Path("nowhere")))
        made.feed.close()
        assert closed == [True]


class Slow(Talk):
    """Accepts two messages a second, and wants one for each symbol."""

    messages_per_s = 2.0

    def subscriptions(self, symbols: Sequence[str]) -> list[str]:
        return [f"+{symbol}" for symbol in symbols]


class TestLimitsOfTheExchange:
    """Messages a second and symbols a connection, as exchanges document them."""

    def test_subscriptions_are_paced(self, rig: Make) -> None:
        line = Line(5.0, lost())
        rig(line, exchange=Slow, symbols=("A", "B", "C")).story(2)
        texts = [(at_s, what) for at_s, what in line.sent if what != "<ping>" and str(what).startswith("+")]
        assert texts == [(1.0, "+A"), (1.5, "+B"), (2.0, "+C")]

    def test_a_message_that_is_always_too_large_ends_with_12(self, rig: Make) -> None:
        big = ConnectionLost("a message of more than 1000 bytes", 1009)
        made = rig(*[Line(big) for _ in range(3)], config=replace(CONFIG, max_message_bytes=1000))
        with pytest.raises(ConfigError, match=r"too large.*raise feed\.max_message_bytes, which is 1000"):
            made.until(lambda: False)
        assert len(made.network.dialled) == 3

    def test_the_bound_of_the_exchange_counts_where_none_is_configured(self, rig: Make) -> None:
        class Large(Talk):
            message_bytes = 8 << 20

        for config, bound in ((CONFIG, 8 << 20), (replace(CONFIG, max_message_bytes=2000), 2000)):
            made = rig(Line(), exchange=Large, config=config)
            made.story(1)
            assert made.network.max_message_bytes == bound
