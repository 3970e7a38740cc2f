"""What a server asked for with Retry-After survives a restart, and no clock or file makes it longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tradebot.feeds.websocket.http import RETRY_AFTER_MAX_S
from tradebot.feeds.websocket.retry_after import RetryAfterFile, retry_after_path, server_of

NOW_MS = 1_700_000_000_000


def test_it_is_kept_and_runs_out(tmp_path: Path) -> None:
    path = retry_after_path(tmp_path / "x.db")
    assert RetryAfterFile(path, "a:443").keep(600.0, NOW_MS) is None
    file = RetryAfterFile(path, "a:443")
    assert file.remaining_s(NOW_MS + 100_000) == (500.0, None)
    assert file.remaining_s(NOW_MS + 600_001) == (0.0, None)
    assert file.remaining_s(NOW_MS - 10**9) == (600.0, None), "a clock that was set back does not prolong it"
    assert RetryAfterFile(path, "b:443").remaining_s(NOW_MS) == (0.0, None), "another server asked for nothing"
    assert path.stat().st_mode & 0o777 == 0o600
    file.clear()
    assert file.remaining_s(NOW_MS) == (0.0, None)
    file.clear()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"server":"a:443","until_ms":"x","seconds":1}', b"[]"])
def test_a_damaged_file_is_named_and_passed_over(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content)
    path.chmod(0o600)
    seconds, trouble = RetryAfterFile(path, "a:443").remaining_s(NOW_MS)
    assert seconds == 0.0 and trouble is not None and str(path) in trouble


def test_no_file_asks_for_more_than_a_day(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(f'{{"server":"a:443","until_ms":{NOW_MS * 2},"seconds":1e300}}')
    path.chmod(0o600)
    assert RetryAfterFile(path, "a:443").remaining_s(NOW_MS) == (RETRY_AFTER_MAX_S, None)


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    file = RetryAfterFile(tmp_path / "missing" / "r.json", "a:443")
    trouble = file.keep(5.0, NOW_MS)
    assert trouble is not None and "r.json" in trouble


@pytest.mark.parametrize(
    ("url", "server"),
    [("wss://u:p@Ex.com/ws?key=1", "ex.com:"), ("ws://127.0.0.1:9001", "127.0.0.1:9001"), ("ws://[::1:9", "")],
)
def test_a_server_is_host_and_port(url: str, server: str) -> None:
    assert server_of(url) == server
