"""Streams whose reader goes away, whose disk is full or whose encoding is poor: nothing reaches the writer."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tradebot.output.streams import READER_GONE, GuardedStream

REPO = Path(__file__).parents[3]


class Failing(io.StringIO):
    """A stream that fails as often as told, then works."""

    def __init__(self, error: Exception, times: int) -> None:
        super().__init__()
        self.error = error
        self.times = times

    def write(self, text: str) -> int:
        if self.times:
            self.times -= 1
            raise self.error
        return super().write(text)


def test_writes_and_counts_nothing_lost() -> None:
    stream = io.StringIO()
    guarded = GuardedStream(stream)
    guarded.write("a\n")
    guarded.write("b\n")
    guarded.close()
    assert stream.getvalue() == "a\nb\n"
    assert guarded.lost == 0
    assert not stream.closed


def test_each_write_is_flushed(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("w") as stream:
        GuardedStream(stream).write("a\n")
        assert path.read_text() == "a\n"


def test_a_gone_reader_is_not_asked_again() -> None:
    stream = Failing(BrokenPipeError(errno.EPIPE, "Broken pipe"), times=1)
    guarded = GuardedStream(stream)
    guarded.write("lost")
    guarded.write("lost as well: nobody reads any more")
    assert stream.getvalue() == ""
    assert guarded.lost == 2
    assert not guarded.isatty()


def test_a_full_disk_loses_only_what_it_had_no_room_for() -> None:
    stream = Failing(OSError(errno.ENOSPC, "No space left on device"), times=2)
    guarded = GuardedStream(stream)
    for text in "abc":
        guarded.write(text)
    assert stream.getvalue() == "c"
    assert guarded.lost == 2


@pytest.mark.parametrize("stream", [None, io.TextIOWrapper(io.BytesIO())])
def test_closed_or_never_open(stream: io.TextIOWrapper | None) -> None:
    if stream is not None:
        stream.close()
    guarded = GuardedStream(stream)
    guarded.write("lost")
    guarded.write("lost")
    guarded.close()
    assert guarded.lost == 2
    assert not guarded.isatty()


def test_a_pipe_without_reader_leaves_nothing_for_the_interpreter_to_fail_on() -> None:
    read, write = os.pipe()
    stream = os.fdopen(write, "w")
    os.close(read)
    guarded = GuardedStream(stream)
    guarded.write("lost")
    assert guarded.lost == 1
    stream.flush()  # what Python does at exit
    stream.close()


def test_a_reader_that_goes_before_the_last_flush() -> None:
    read, write = os.pipe()
    stream = os.fdopen(write, "w")
    guarded = GuardedStream(stream)
    stream.write("by somebody else")
    os.close(read)
    guarded.close()
    stream.close()


def test_what_the_encoding_lacks_is_spelled_out() -> None:
    raw = io.BytesIO()
    guarded = GuardedStream(io.TextIOWrapper(raw, encoding="latin-1"))
    guarded.write("ü 日\n")
    assert raw.getvalue() == b"\xfc \\u65e5\n"
    assert guarded.lost == 0
    assert guarded.encoding == "latin-1"


def test_a_stream_without_encoding_counts_as_ascii() -> None:
    assert GuardedStream(io.StringIO()).encoding == "ascii"
    assert GuardedStream(None).encoding == "ascii"


def test_a_stream_that_refuses_even_its_own_encoding_loses_the_text() -> None:
    guarded = GuardedStream(Failing(UnicodeEncodeError("ascii", "x", 0, 1, "refused"), times=99))
    guarded.write("plain")
    assert guarded.lost == 1


def without_reader(*words: str) -> tuple[int, str]:
    """Exit code and standard error of a Python program whose standard output nobody reads."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, *words], cwd=REPO, stdout=write, stderr=subprocess.PIPE, text=True, timeout=50, check=False
        )
    finally:
        os.close(write)
    return done.returncode, done.stderr


RUN = "import os, sys\nfrom tradebot.output.streams import run_tool\n"


def test_a_tool_ends_quietly_when_nobody_reads_its_output() -> None:
    assert without_reader("-c", RUN + "run_tool(lambda: print('x' * 100_000))") == (READER_GONE, "")


def test_a_tool_does_not_hide_another_broken_pipe() -> None:
    other = "def main():\n    read, write = os.pipe()\n    os.close(read)\n    os.write(write, b'x')\nrun_tool(main)"
    done = subprocess.run([sys.executable, "-c", RUN + other], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "BrokenPipeError" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["sim", "--list"],
        ["sim", "--scenario=full_replay", "--seed=1"],
        ["sim.runner.soak_day", "--help"],
        *([f"bench.{name}", "--help"] for name in ("live", "memory", "peers", "replay", "soak", "storage")),
        ["mockws_server", "--help"],
    ],
    ids=" ".join,
)
def test_entry_points_end_quietly_when_nobody_reads_their_output(words: list[str]) -> None:
    code, complaint = without_reader("-m", *words)
    assert code in (0, READER_GONE) and "Error" not in complaint
