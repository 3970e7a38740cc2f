"""`tradebot capture` as a process: a replay of its files gives the ticks that were sent, however the capture ends."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.okx_server import ACK, BOOK, SYMBOL, Exchange, running_exchange, trade
from tests.e2e.process import REPO, Engine, Finished, Running, assert_sound, rows, wait_until
from tradebot.core.log_events import LogEvent
from tradebot.feeds.capture_file import CaptureHeader, Record, frame_of_line
from tradebot.feeds.replay.decompress import Damaged, unpack

BIN = (REPO / "bin" / "tradebot",)


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    with running_exchange() as started:
        yield started


def begin(engine: Engine, exchange: Exchange, *args: str) -> Running:
    """A capture that has subscribed."""
    options = ("--exchange=okx", f"--symbol={SYMBOL}", f"--ws-url={exchange.url}", "--out=captured", *args)
    running = engine.start("capture", *options, command=BIN, env={"TRADEBOT_PYTHON": sys.executable})
    exchange.connection()
    return running


def files(engine: Engine) -> list[Path]:
    return sorted(engine.path("captured").glob("*"))


def content(path: Path) -> list[Record | CaptureHeader | str]:
    """The complete lines of a file that is being written; empty if it does not exist."""
    pieces: list[bytes] = []
    with suppress(FileNotFoundError, Damaged):
        pieces.extend(unpack(iter([path.read_bytes()])))
    # The last line may be incomplete.
    return [frame_of_line(line) for line in b"".join(pieces).split(b"\n")[:-1]]


def recorded(engine: Engine) -> list[Record | CaptureHeader | str]:
    return [each for path in files(engine) for each in content(path)]


def texts(engine: Engine) -> list[str]:
    return [each.text for each in recorded(engine) if isinstance(each, Record)]


def replay(engine: Engine, path: Path, *more: str, db: str = "r.db") -> Finished:
    return engine.run("--ingest=replay", f"--replay-file={path}", f"--db={db}", *more)


def test_what_was_captured_replays_to_what_was_sent(engine: Engine, exchange: Exchange) -> None:
    """All frames of two connections, with duplicates after the reconnect; SIGTERM is served in between."""
    running = begin(engine, exchange)
    exchange.send(*(trade(number) for number in range(1, 21)), BOOK, "what is this?")
    exchange.connection(1).close(1012)
    exchange.send(*(trade(number) for number in range(18, 31)), connection=2)
    wait_until(lambda: texts(engine)[-1:] == [trade(30)], "all frames in the file")
    running.send(signal.SIGTERM)
    done = running.finish().expect(0)

    assert exchange.asked == ['{"op":"subscribe","args":[{"channel":"trades","instId":"BTC-USDT"}]}'] * 2
    assert "37 frames (30 trades) captured" in done.stdout
    for event in (LogEvent.LINK_UP, LogEvent.LINK_LOST, LogEvent.LINK_RESTORED, LogEvent.MALFORMED_INPUT):
        assert done.all(event)
    (path,) = files(engine)
    assert path.name == "okx-000001.jsonl.zst"
    header, *frames = recorded(engine)
    assert isinstance(header, CaptureHeader) and (header.exchange, header.symbols) == ("okx", (SYMBOL,))
    assert [each.connection for each in frames if isinstance(each, Record)] == [1] * 23 + [2] * 14
    assert texts(engine)[:2] == [ACK, trade(1)]

    replayed = replay(engine, path, "--exchange=okx").expect(0)
    assert rows(engine.path("r.db"), "SELECT event_id, ts FROM ticks ORDER BY id") == [
        (str(number), 1_700_000_000_000 + number) for number in range(1, 31)
    ]
    ledger = replayed.ledger
    assert (ledger["received"], ledger["malformed"], ledger["duplicates"]) == (34, 1, 3)
    assert_sound(engine.path("r.db"))


def test_a_capture_is_not_a_file_of_ticks(engine: Engine, exchange: Exchange) -> None:
    """One message names the exchange to give, instead of a malformed line per frame; nothing is stored."""
    running = begin(engine, exchange)
    exchange.send(*(trade(number) for number in range(50)))
    wait_until(lambda: texts(engine)[-1:] == [trade(49)], "all frames in the file")
    running.send(signal.SIGTERM)
    running.finish().expect(0)
    (path,) = files(engine)
    for more, told in (((), "recorded frames, not ticks; add --exchange=okx"),
                       (("--exchange=kraken",), "recorded from okx, not kraken; give --exchange=okx")):  # fmt: skip
        done = replay(engine, path, *more).expect(12)
        assert told in done.complaint
        assert not engine.path("r.db").exists()
    with path.open("rb") as piped:
        options = ("--ingest=replay", "--replay-file=-", "--run-id=r1", "--db=r.db")
        done = engine.run(*options, stdin=piped).expect(12)
    assert "standard input: holds recorded frames, not ticks; add --exchange=okx" in done.stderr
    assert done.ledger["received"] == 0


def test_kill_9_leaves_what_was_flushed(engine: Engine, exchange: Exchange) -> None:
    running = begin(engine, exchange)
    exchange.send(*(trade(number) for number in range(1, 31)))
    wait_until(lambda: texts(engine)[-1:] == [trade(30)], "all frames in the file")
    exchange.send(*(trade(number) for number in range(31, 41)))
    running.kill()
    held = texts(engine)
    assert held == [ACK, *(trade(number) for number in range(1, len(held)))]
    replay(engine, files(engine)[0], "--exchange=okx").expect(0)
    assert rows(engine.path("r.db"), "SELECT COUNT(*) FROM ticks")[0][0] == len(held) - 1 >= 30


def test_the_bound_on_disk_holds_and_each_file_stands_alone(engine: Engine, exchange: Exchange) -> None:
    """--max-mb: the oldest file is deleted first; later files begin with the answer to the subscription."""
    running = begin(engine, exchange, "--max-mb=1")
    with open("/dev/urandom", "rb") as noise:  # hexadecimal text of noise compresses to no less than half
        exchange.send(*(trade(number, note=noise.read(6000).hex()) for number in range(300)))
    wait_until(lambda: '"tradeId": "299"' in "".join(texts(engine)[-1:]), "the last frame in a file")
    sizes = [path.stat().st_size for path in files(engine)]
    running.send(signal.SIGINT)
    running.finish().expect(0)
    assert len(sizes) == 2 and 500_000 < sum(sizes) <= 1_000_000
    assert not any('"tradeId": "0"' in text for text in texts(engine))
    for number, path in enumerate(files(engine)):
        header, answer, *frames = content(path)
        assert isinstance(header, CaptureHeader)
        assert isinstance(answer, Record) and answer.text == ACK
        replay(engine, path, "--exchange=okx", db=f"{number}.db").expect(0)
        assert rows(engine.path(f"{number}.db"), "SELECT COUNT(*) FROM ticks") == [(len(frames),)]


def test_the_seconds_and_a_source(engine: Engine, exchange: Exchange) -> None:
    """The files of a source have its name."""
    engine.path("s.toml").write_text(f"[mine]\nexchange = 'okx'\nsymbols = ['{SYMBOL}']\nurl = '{exchange.url}'\n")
    running = engine.start("capture", "--ws-source=mine", "--ws-sources=s.toml", "--seconds=1.5")
    exchange.send(trade(1))
    done = running.finish().expect(0)
    assert "2 frames (1 trades) captured, the last of them in mine-000001.jsonl.zst" in done.stdout
    assert engine.path("mine-000001.jsonl.zst").exists()


def test_nobody_there(engine: Engine) -> None:
    """Commands other than run exit with 1; no empty file remains."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    config = engine.config("c.toml", "[feed]\nreconnect_budget_s = 0.3\n")
    done = engine.run("capture", config, "--exchange=okx", "--symbol=A",
                      f"--ws-url=ws://user:hunter2@127.0.0.1:{port}", "--out=captured").expect(1)  # fmt: skip
    assert f"no connection to ws://***@127.0.0.1:{port} within feed.reconnect_budget_s (0.3 s)" in done.complaint
    assert "refused" in done.complaint
    assert "hunter2" not in done.stderr
    assert files(engine) == []


def test_a_stop_while_connecting(engine: Engine) -> None:
    """S13: a server that never answers does not delay a stop."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"ws://127.0.0.1:{mute.getsockname()[1]}"
        running = engine.start("capture", "--exchange=okx", "--symbol=A", f"--ws-url={url}", "--out=captured")
        with mute.accept()[0] as link:
            link.recv(1)  # the handshake has been sent
            running.send(signal.SIGTERM)
            done = running.finish(5.0).expect(0)
    assert done.stdout == "no frame arrived: nothing was captured\n"
    assert not done.all(LogEvent.CONNECT_FAILED)
    assert files(engine) == []


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        ((), 12, "needs --ws-source=NAME, or --exchange=NAME and --symbol=SYM"),
        (("--exchange=okx",), 12, "--exchange=okx needs --symbol=SYM"),
        (("--exchange=okx", "--symbol=A", "--max-mb=0"), 12, "--max-mb: must be a whole number of megabytes"),
        (("--exchange=okx", "--symbol=A", "--db=x"), 12, "--db: capture takes no such option"),
        (("--exchange=okx", "--symbol=A", "--out=taken"), 1, "taken/okx"),
        (("--ws-source=nowhere",), 1, "has no source nowhere"),
    ],
)
def test_bad_options(engine: Engine, args: tuple[str, ...], code: int, told: str) -> None:
    """12 for a usage error, 1 if the capture is not possible: one message."""
    engine.path("taken").write_text("a file")
    done = engine.run("capture", *args).expect(code)
    assert done.stdout == ""
    assert done.complaint.startswith("tradebot: ")
    assert done.complaint.count("\n") == 0
    assert told in done.complaint
