"""Invalid input of every kind gives the right exit code and one readable message, never a traceback."""

from __future__ import annotations

import gzip
import os
import random
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard

from tests.e2e.process import CROSSOVER, SESSION, Engine, Finished, assert_sound, counts, dump, rows
from tests.e2e.tmpfs import small_disk
from tradebot.core.log_events import LogEvent

REPLAY = ("--ingest=replay", f"--replay-file={CROSSOVER}")


def assert_one_message(done: Finished, *words: str) -> None:
    """One readable message that contains all `words`, beside valid log lines; nothing on standard output."""
    assert done.stdout == ""
    lines = done.complaint.splitlines()
    assert lines, "nobody was told"
    assert lines[0].startswith("tradebot: "), lines
    # Further lines belong to the first: they are indented.
    assert all(line.startswith("  ") for line in lines[1:]), lines
    assert len(lines) <= 6
    assert done.complaint.isprintable() or "\n" in done.complaint
    for word in words:
        assert word in done.complaint, f"{word!r} is not in: {done.complaint}"


@dataclass(frozen=True)
class Bad:
    """An invalid configuration file or options, and the expected message."""

    name: str
    toml: str | None
    args: tuple[str, ...]
    words: tuple[str, ...]


CONFIGURATIONS = [
    Bad("bad TOML", 'mode = "SHADOW', (), ("bad.toml:1", "TOML")),
    Bad("not text", "\0\udcff", (), ("bad.toml",)),
    Bad("unknown key", "[engine]\ntick_intervall_ms = 5\n", (), ("bad.toml:2", "did you mean engine.tick_interval_ms")),
    Bad("unknown section", "[chanels]\n", (), ("bad.toml:1", "chanels", "channels")),
    Bad("wrong type", '[engine]\nsample_every = "often"\n', (), ("bad.toml:2", "engine.sample_every", "whole number")),
    Bad("negative cap", "[risk_caps]\nmax_exposure_usd = -1.0\n", (), ("bad.toml:2", "max_exposure_usd", "at least 0")),
    Bad("zero channel", "[channels]\n\ntick_channel_size = 0\n", (), ("bad.toml:3", "tick_channel_size", "at least 1")),
    Bad("unknown mode", 'mode = "SHADOWY"\n', (), ("bad.toml:1", "mode", "did you mean SHADOW")),
    Bad("unknown strategy", '[strategy]\nname = "sma"\n', (), ("bad.toml:2", "sma", "sma_crossover")),
    Bad("windows crossed", "[strategy]\nshort_window = 20\nlong_window = 5\n", (), ("short_window", "long_window")),
    Bad("all at once", "[engine]\nsample_every = 0\nx = 1\n[app]\nsymbol = 5\n", (), ("3 things", "x", "app.symbol")),
    Bad(
        "step of 0", '[instruments."A"]\ntick_size = 0\n', (), ("bad.toml:2", "instruments.A.tick_size", "more than 0")
    ),
    Bad(
        "base is quote", '[instruments."A"]\nbase = "EUR"\nquote = "EUR"\n', (), ("bad.toml:2", "EUR is the quote, too")
    ),
    Bad("unknown quote", '[instruments."A"]\nquote = "USTD"\n', (), ("bad.toml:2", "did you mean UST", "[rates]")),
    Bad("inverse", '[instruments."A"]\ninverse = true\n', (), ("bad.toml:2", "needs base")),
    Bad("minimum between lots", '[instruments."A"]\nlot_size = 0.3\nmin_qty = 0.5\n', (), ("bad.toml:3", "multiple")),
    Bad("rate of 0", "[rates]\nEUR = 0\n", (), ("bad.toml:2", "rates.EUR", "more than 0")),
    Bad(
        "rates in a circle",
        '[rates]\nEUR = {symbol = "EUR/GBP"}\nGBP = {symbol = "GBP/EUR"}\n',
        (),
        ("bad.toml:2", "depends on itself: EUR -> GBP -> EUR"),
    ),
    Bad("negative latency", "[paper]\nlatency_ms = -1\n", (), ("bad.toml:2", "paper.latency_ms", "at least 0")),
    Bad("no participation", "[paper]\nparticipation = 0\n", (), ("bad.toml:2", "paper.participation", "more than 0")),
    Bad("participation", "[paper]\nparticipation = 2\n", (), ("bad.toml:2", "paper.participation", "at most 1")),
    Bad("queue", '[paper]\nqueue = "trade"\n', (), ("bad.toml:2", "paper.queue", "did you mean trades")),
    Bad("on_gap", '[paper]\non_gap = "cancle"\n', (), ("bad.toml:2", "paper.on_gap", "did you mean cancel")),
    Bad("order type", '[execution]\norder_type = "limits"\n', (), ("bad.toml:2", "order_type", "did you mean limit")),
    Bad("post_only market orders", "[execution]\npost_only = true\n", (), ("bad.toml:2", 'order_type = "limit"')),
    Bad("no price left", "[execution]\nlimit_offset_bps = 10_000\n", (), ("bad.toml:2", "limit_offset_bps", "at most")),
    Bad("no balance", "[account]\ninitial_balance = 0\n", (), ("bad.toml:2", "account.initial_balance", "more than 0")),
    Bad("leverage", "[account]\nmax_leverage = 0.5\n", (), ("bad.toml:2", "account.max_leverage", "at least 1")),
    Bad("drawdown", "[breakers]\nmax_drawdown_pct = 101\n", (), ("bad.toml:2", "max_drawdown_pct", "at most 100")),
    Bad("LIVE in the file", 'mode = "LIVE"\nlive_armed = true\n', (), ("LIVE", "proof bundle", "live gateway")),
    Bad("missing configuration", None, ("--config=nowhere.toml",), ("nowhere.toml", "no such")),
    Bad("directory as configuration", None, ("--config=/",), ("/", "directory")),
    Bad("LIVE", None, ("--mode=live",), ("LIVE", "live_armed", "proof bundle", "live gateway")),
    Bad("no exchange", None, ("--ingest=realws",), ("realws", "--ws-source", "--exchange", "tradebot sources")),
    Bad("no symbol", None, ("--ingest=realws", "--exchange=binance"), ("--exchange=binance", "--symbol")),
    Bad("exchange", None, ("--ingest=realws", "--exchange=krakn"), ("--exchange", "did you mean kraken")),
    Bad("source", None, ("--ingest=realws", "--ws-source=none"), ("ws_sources.toml", "none", "tradebot sources")),
    Bad("URL", None, ("--ingest=mockws", "--ws-url=http://u:hunter2@h"), ("--ws-url", "ws://")),
    Bad("mode of the command line", None, ("--mode=lively",), ("--mode", "lively")),
    Bad("feed of the command line", None, ("--ingest=replays",), ("--ingest", "did you mean replay")),
    Bad("zero sampling", None, ("--sample-every=0",), ("--sample-every", "at least 1")),
    Bad("negative time", None, ("--seconds=-1",), ("--seconds",)),
    Bad("no number", None, ("--seconds=soon",), ("--seconds", "soon")),
    Bad("speed", None, ("--ingest=replay", "--replay-file=-", "--speed=fast"), ("--speed", "realtime")),
    Bad("unknown option", None, ("--replay=x",), ("--replay", "tradebot run --help")),
    Bad("unknown command", None, ("start",), ("start", "tradebot --help")),
    Bad("unknown log level", None, ("--log-level=loud",), ("--log-level", "loud")),
    Bad("option of another feed", None, ("--replay-file=x.jsonl",), ("--replay-file", "add --ingest=replay")),
]


@pytest.mark.parametrize("bad", CONFIGURATIONS, ids=lambda bad: bad.name)
def test_a_bad_configuration_is_refused(engine: Engine, bad: Bad) -> None:
    """G1: exit 12 before anything is changed."""
    if bad.toml is not None:
        engine.path("bad.toml").write_bytes(bad.toml.encode("utf-8", "surrogateescape"))
    args = ("--config=bad.toml",) if bad.toml is not None else bad.args
    done = engine.run(*args, "--db=untouched.db").expect(12)
    assert_one_message(done, *bad.words)
    assert not engine.path("untouched.db").exists()


def test_an_unknown_variable_of_the_environment_is_no_better(engine: Engine) -> None:
    """Unknown values are errors, never replaced by a default."""
    assert_one_message(engine.run("--seconds=1", env={"TRADEBOT_LOG_LEVEL": "loud"}).expect(12), "TRADEBOT_LOG_LEVEL")
    assert_one_message(engine.run("--seconds=1", env={"TRADEBOT_CONFIG": "nowhere.toml"}).expect(12), "nowhere.toml")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("nowhere.jsonl", ("nowhere.jsonl", "No such file")),
        (".", ("directory",)),
        ("secret.jsonl/ticks.jsonl", ("secret.jsonl/ticks.jsonl",)),
    ],
)
def test_a_missing_replay_file_is_refused(engine: Engine, given: str, words: tuple[str, ...]) -> None:
    """Exit code 12."""
    engine.path("secret.jsonl").write_text("")
    done = engine.run("--ingest=replay", f"--replay-file={given}", "--db=x.db").expect(12)
    assert_one_message(done, *words)


def test_a_missing_replay_database_is_refused(engine: Engine) -> None:
    """Exit 12, also for a run that the database does not contain."""
    assert_one_message(engine.run("--ingest=replay", "--replay-db=no.db", "--db=x.db").expect(12), "no.db")
    assert_one_message(engine.run("--ingest=replay", "--db=no.db").expect(12), "no.db")
    engine.run(*REPLAY, "--db=origin.db").expect(0)
    args = ("--ingest=replay", "--replay-db=origin.db", "--replay-run=rNone", "--db=x.db")
    assert_one_message(engine.run(*args).expect(12), "rNone")
    assert not engine.path("no.db").exists()


def test_a_directory_that_cannot_be_made_or_written_is_refused(engine: Engine) -> None:
    """Exit code 12."""
    engine.path("file").write_text("")
    assert_one_message(engine.run(*REPLAY, "--db=file/x.db").expect(12), "file")
    assert_one_message(engine.run(*REPLAY, "--db=/proc/nowhere/x.db").expect(12), "/proc/nowhere")
    if os.geteuid():  # root may write everywhere
        engine.path("locked").mkdir(0o555)
        assert_one_message(engine.run(*REPLAY, "--db=locked/x.db").expect(12), "not writable")


def test_a_read_only_file_system_is_waited_for(engine: Engine) -> None:
    """13, not 12, because the error may be temporary; with a new and with an existing file."""
    soon = engine.config("soon.toml", "[persist]\nstorage_retry_s = 0.2\n")
    with small_disk(engine.path("disk"), size_mb=64) as disk:
        engine.run(*REPLAY, "--db=disk/x.db").expect(0)
        disk.make_read_only()
        assert_one_message(engine.run(soon, *REPLAY, "--db=disk/y.db").expect(13), "y.db", "read-only")
        assert_one_message(engine.run(soon, *REPLAY, "--db=disk/x.db", "--resume").expect(13), "x.db", "read-only")


def damaged(path: Path, undisturbed: Path) -> None:
    shutil.copy(undisturbed, path)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(random.Random(1).randbytes(200_000))


def with_magic(path: Path, _undisturbed: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + random.Random(2).randbytes(8192))


def of_another_program(path: Path, _undisturbed: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE ticks (what TEXT)")
        db.commit()


def from_the_future(path: Path, undisturbed: Path) -> None:
    shutil.copy(undisturbed, path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")


def content(path: Path) -> object:
    """The content of a file: rows for an intact database, otherwise bytes."""
    if not path.is_file():
        return None
    try:
        with closing(sqlite3.connect(path)) as db:
            return list(db.iterdump())
    except sqlite3.DatabaseError:
        return path.read_bytes()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path, _: path.mkdir(), ("directory",)),
        (lambda path, _: path.write_text("dear diary\n"), ("not a SQLite database",)),
        (lambda path, _: os.mkfifo(path), ("not a regular file",)),
        (with_magic, ("not a database",)),
        (damaged, ("damaged",)),
        (of_another_program, ("not a tradebot database",)),
        (from_the_future, ("newer tradebot",)),
    ],
    ids=["directory", "text file", "pipe", "magic and noise", "damaged", "another program's", "newer schema"],
)
def test_what_is_no_database_of_ours_is_refused_and_left_alone(
    engine: Engine, undisturbed: Path, make: object, words: tuple[str, ...]
) -> None:
    """G3: exit 12, because a later start would not help."""
    db = engine.path("x.db")
    assert callable(make)
    make(db, undisturbed)
    before = content(db)
    assert_one_message(engine.run(*REPLAY, "--db=x.db").expect(12), "x.db", *words)
    assert content(db) == before


def noise() -> bytes:
    chance = random.Random(20240808)
    return chance.randbytes(300_000) + b"\n" + b"\n".join(chance.randbytes(80) for _ in range(500))


def test_random_bytes_as_a_replay_are_counted(engine: Engine) -> None:
    """Exit 11 with a count and one message; with --strict at the first line."""
    engine.path("noise").write_bytes(noise())
    args = ("--ingest=replay", "--replay-file=noise")
    done = engine.run(*args, "--db=x.db").expect(11)
    assert done.one(LogEvent.STAGE_FAILED)["detail"].startswith("noise: no line is a tick: it looks like binary data")
    ledger = done.ledger
    assert ledger["received"] == ledger["malformed"] > 1000
    assert ledger["stored"] == 0
    assert f"{ledger['malformed']:,}" in done.stdout
    assert done.all(LogEvent.MALFORMED_INPUT)[0]["line"] == 1
    assert len(done.logs) < 600, "the log of malformed lines is bounded"
    strict = engine.run(*args, "--db=y.db", "--strict").expect(11)
    assert "noise:1:" in strict.one(LogEvent.STAGE_FAILED)["detail"]
    assert strict.ledger["malformed"] == 1


def test_what_is_good_beside_what_is_bad_is_kept(engine: Engine, undisturbed: Path) -> None:
    """Malformed lines are skipped and reported with their numbers; valid lines are stored as without them."""
    good = CROSSOVER.read_bytes().splitlines()
    bad = [b"{", b'{"symbol":"A","price":-1,"volume":1,"ts":1}', b"\xff\xfe", b"[]", b"x" * (1 << 21)]
    lines = [*good[:10], bad[0], *good[10:20], b"", *bad[1:4], *good[20:45], bad[4], *good[45:]]
    engine.path("mixed.jsonl").write_bytes(b"\n".join(lines))  # and no newline at the end
    done = engine.run("--ingest=replay", "--replay-file=mixed.jsonl", "--db=x.db").expect(0)
    assert done.ledger["malformed"] == 5
    assert [fields["line"] for fields in done.all(LogEvent.MALFORMED_INPUT)] == [11, 23, 24, 25, 51]
    engine.run(*REPLAY, "--db=y.db").expect(0)
    query = "SELECT symbol, price, ts FROM ticks UNION ALL SELECT symbol, kind, ts FROM signals"
    assert rows(engine.path("x.db"), query) == rows(engine.path("y.db"), query)
    strict = engine.run("--ingest=replay", "--replay-file=mixed.jsonl", "--db=z.db", "--strict").expect(11)
    assert "mixed.jsonl:11:" in strict.one(LogEvent.STAGE_FAILED)["detail"]
    assert counts(engine.path("z.db"))["ticks"] == 10
    assert_sound(engine.path("z.db"))


@pytest.mark.parametrize("cut", ["gz", "zst"])
def test_a_damaged_archive_gives_what_can_be_read(engine: Engine, cut: str) -> None:
    """The readable part is stored; the damage is one malformed line, or 11 with --strict."""
    packed = gzip.compress(SESSION.read_bytes()) if cut == "gz" else zstandard.compress(SESSION.read_bytes())
    engine.path("cut").write_bytes(packed[: len(packed) * 2 // 3])
    done = engine.run("--ingest=replay", "--replay-file=cut", "--db=x.db").expect(0)
    assert done.ledger["malformed"] == 1
    assert 0 < done.ledger["stored"] < 13_932
    engine.run("--ingest=replay", "--replay-file=cut", "--db=y.db", "--strict").expect(11)


def test_an_input_without_a_tick_ends_with_11(engine: Engine) -> None:
    """One message says what the file looks like and what to do; the second time too, instead of 12."""
    for name, content, words in (
        ("empty", b"", "is empty"),
        ("blank", b"\n \n", "contains only white space"),
        ("table", b"a,b\n1,2\n3,4\n", "looks like CSV of rows with the columns a, b; convert it"),
    ):
        engine.path(name).write_bytes(content)
        for _ in range(2):
            done = engine.run("--ingest=replay", f"--replay-file={name}", "--db=x.db").expect(11)
            assert done.ledger["accepted"] == 0
            [because] = [line for line in done.stdout.splitlines() if line.startswith("because")]
            assert f"{name}: no line is a tick: it {words}" in because


def test_a_step_of_the_price_above_the_price_refuses_each_order(engine: Engine) -> None:
    """A limit that rounds down to 0 is never sent, and the log says which key is wrong."""
    config = engine.config(
        "c.toml",
        'mode = "PAPER"\n[strategy]\nname = "periodic"\n[execution]\norder_type = "limit"\n'
        '[instruments."TEST/USD"]\ntick_size = 1000\n',
    )
    done = engine.run(config, *REPLAY, "--db=x.db").expect(0)
    assert rows(engine.path("x.db"), "SELECT DISTINCT status, reason FROM orders WHERE side = 'BUY'") == [
        ("REJECTED", "MIN_NOTIONAL")
    ]
    details = {fields["detail"] for fields in done.all(LogEvent.ORDER_REFUSED) if fields["side"] == "BUY"}
    assert details == {'the price of the order is less than one step, instruments."TEST/USD".tick_size = 1000.0'}


def test_keys_of_paper_have_no_effect_in_shadow(engine: Engine) -> None:
    """One file may serve both modes."""
    text = '[paper]\nlatency_ms = 5\n[account]\ninitial_balance = 1.0\n[execution]\norder_type = "limit"\n'
    engine.run(engine.config("c.toml", text), *REPLAY, "--db=x.db").expect(0)
    engine.run(*REPLAY, "--db=y.db").expect(0)
    query = "SELECT symbol, side, qty, price, status, reason, order_type, limit_price FROM orders"
    assert rows(engine.path("x.db"), query) == rows(engine.path("y.db"), query) != []


def test_a_run_is_not_resumed_in_another_mode(engine: Engine) -> None:
    """A replay of a file is another run then; the id of one from standard input belongs to the mode it began in."""
    engine.run(*REPLAY, "--db=x.db").expect(0)
    engine.run(*REPLAY, "--db=x.db", "--mode=paper", "--resume").expect(0)
    assert rows(engine.path("x.db"), "SELECT mode, complete, ticks FROM runs") == [("SHADOW", 1, 50), ("PAPER", 1, 50)]
    args = ("--ingest=replay", "--replay-file=-", "--run-id=mine", "--db=z.db")
    with CROSSOVER.open("rb") as lines:
        engine.run(*args, stdin=lines).expect(0)
    with CROSSOVER.open("rb") as lines:
        done = engine.run(*args, "--mode=paper", "--resume", stdin=lines).expect(12)
    assert_one_message(done, "run id mine is already in database", "choose another --run-id")


@pytest.mark.parametrize("state", ["ff", "81a776657273696f6e63", "81a776657273696f6e01"])
def test_a_state_that_cannot_be_read_is_refused(engine: Engine, state: str) -> None:
    """Of another version, or damaged in any way; the file stays as it is."""
    args = ("--mode=paper", "--db=x.db", "--seconds=0.1", "--set=engine.tick_interval_ms=5")
    engine.run(*args).expect(0)
    with closing(sqlite3.connect(engine.path("x.db"))) as db, db:
        db.execute(f"UPDATE checkpoints SET state = x'{state}'")
    done = engine.run(*args).expect(12)
    assert_one_message(done, "the database has the state after tick", "cannot continue", "use another --db")
    assert rows(engine.path("x.db"), "SELECT DISTINCT hex(state) FROM checkpoints") == [(state.upper(),)]


def test_halt_without_an_engine_says_so(engine: Engine) -> None:
    """It holds for the next start; without a database there is nothing that it could hold for."""
    done = engine.run("halt", "--db=x.db").expect(1)
    assert "there is no database, so no engine that could be halted; check --db" in done.stdout + done.stderr
    engine.run(*REPLAY, "--db=x.db").expect(0)
    done = engine.run("halt", "--db=x.db").expect(0)
    assert "no engine is running: the next start with a live feed refuses orders" in done.stdout


def test_a_replay_is_not_stored_twice(engine: Engine) -> None:
    """I3: a second replay exits with 12 and a hint, with --resume with 0; the rows do not change."""
    engine.run(*REPLAY, "--db=x.db").expect(0)
    before = dump(engine.path("x.db"))
    refused = engine.run(*REPLAY, "--db=x.db").expect(12)
    assert_one_message(refused, "x.db", "already holds this replay, whole", "--resume")
    resumed = engine.run(*REPLAY, "--db=x.db", "--resume").expect(0)
    assert "already" in resumed.stdout
    assert dump(engine.path("x.db")) == before
