"""The metrics endpoint, alert rules and dashboard: every counter is exported, and every name in use exists."""

from __future__ import annotations

import gzip
import json
import re
import socket
import urllib.request
from collections.abc import Iterator
from http.client import HTTPConnection
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from tests.unit.telemetry.test_engine_side import status_of
from tradebot.config.model import MetricsConfig
from tradebot.core.errors import ConfigError
from tradebot.core.events import DAILY_LOSS, STALE_MARKET
from tradebot.core.runtime import RealRuntime
from tradebot.execution.trips import BreakersView, Trip
from tradebot.output.log import Log, setup_logging
from tradebot.telemetry.status_file import Status
from tradebot.threads.counters import COUNTERS

pytest.importorskip("prometheus_client", reason="prometheus-client is not installed (pip install 'tradebot[metrics]')")

from prometheus_client import Metric

from tradebot.telemetry.prometheus import OF_COUNTERS, MetricsServer, families

# Those of prometheus-client's own process collector and of Prometheus that rules and dashboard may use.
LOOPBACK = MetricsConfig(address="127.0.0.1", port=0)
OTHERS = {"process_resident_memory_bytes", "up"}


def values(status: Status, now_s: float = 100.0) -> dict[str, float]:
    """Every sample by its name and labels, as in the text format."""
    found = {}
    for family in families(status, now_s):
        for name, labels, value, *_ in family.samples:
            told = ",".join(f"{label}={text}" for label, text in labels.items())
            found[f"{name}{{{told}}}" if told else name] = value
    return found


def test_every_counter_is_exported_and_none_is_mixed_up() -> None:
    counters = {name: 1000 + n for n, name in enumerate(COUNTERS)}
    found = values(status_of(counters=counters))
    assert set(OF_COUNTERS) == set(COUNTERS)
    for counter, (name, _text, labels) in OF_COUNTERS.items():
        told = ",".join(f"{key}={text}" for key, text in labels.items())
        assert found[f"{name}{{{told}}}" if told else name] == counters[counter], counter
    assert sum(1000 <= value < 1000 + len(COUNTERS) for value in found.values()) == len(COUNTERS)


def test_the_other_values() -> None:
    status = status_of(
        started_ms=5_000, still_s={"persist": 61.0}, running=("persist",), link="down", link_down_s=7.0,
        link_age_ms=1500, sample_every=5, state="draining", depths={"tick": 3},
        breakers=BreakersView(7, "news", (Trip(DAILY_LOSS, 8, 9.0, 9.0), Trip(STALE_MARKET, 8, 2.0, 1.0, "A")), 30),
    )  # fmt: skip
    found = values(status, 102.5)
    counted = {name for name, _text, _labels in OF_COUNTERS.values()}
    assert {name: value for name, value in found.items() if name.partition("{")[0] not in counted} == {
        "tradebot_run_info{version=0.1.0,run_id=r,mode=SHADOW,ingest=mockws,source=s,config_hash=c}": 1,
        "tradebot_start_time_seconds": 5,
        "tradebot_status_age_seconds": 2.5,
        "tradebot_draining": 1,
        "tradebot_sample_every": 5,
        "tradebot_link_up": 0,
        "tradebot_link_down_seconds": 7,
        "tradebot_link_silence_seconds": 1.5,
        "tradebot_retry_after_seconds": 0,
        "tradebot_last_tick_time_seconds": 9500,
        "tradebot_channel_depth_events{channel=tick}": 3,
        "tradebot_stage_running{stage=ingest}": 0,
        "tradebot_stage_running{stage=strategy}": 0,
        "tradebot_stage_running{stage=execution}": 0,
        "tradebot_stage_running{stage=persist}": 1,
        "tradebot_stage_running{stage=commit}": 0,
        "tradebot_stage_still_seconds{stage=ingest}": 0,
        "tradebot_stage_still_seconds{stage=strategy}": 0,
        "tradebot_stage_still_seconds{stage=execution}": 0,
        "tradebot_stage_still_seconds{stage=persist}": 61,
        "tradebot_stage_still_seconds{stage=commit}": 0,
        "tradebot_last_commit_time_seconds": 9.6,
        "tradebot_last_commit_duration_seconds": 0.0005,
        "tradebot_halted": 1,
        "tradebot_breakers_tripped{code=MAX_DRAWDOWN}": 0,
        "tradebot_breakers_tripped{code=DAILY_LOSS}": 1,
        "tradebot_breakers_tripped{code=LOSSES_IN_A_ROW}": 0,
        "tradebot_breakers_tripped{code=REFUSALS_PER_MINUTE}": 0,
        "tradebot_breakers_tripped{code=ORDERS_PER_MINUTE}": 0,
        "tradebot_breakers_tripped{code=STALE_MARKET}": 30,
        "tradebot_open_positions": 1,
        "tradebot_exposure{unit=USD}": 30.45,
        "tradebot_profit{unit=USD}": 1.234,
    }


def test_a_link_that_is_up_has_been_down_for_no_time() -> None:
    found = values(status_of())
    assert (found["tradebot_link_up"], found["tradebot_link_down_seconds"]) == (1, 0)


def test_what_is_not_known_has_no_sample() -> None:
    found = values(
        status_of(link=None, link_age_ms=None, last_tick=None, last_stored_ms=None, commit_ms=None, book=None)
    )
    absent = ("link_up", "link_down", "link_silence", "last_tick", "last_commit", "positions", "exposure", "profit")
    assert [name for name in found if any(part in name for part in absent)] == []


def named() -> dict[str, Metric]:
    """Every metric by the name of its samples."""
    return {f"{m.name}_total" if m.type == "counter" else m.name: m for m in families(status_of(), 100.0)}


def test_names_follow_the_conventions() -> None:
    """https://prometheus.io/docs/practices/naming/: base units, _total for counters and for nothing else."""
    assert len(named()) == len(families(status_of(), 100.0)), "each name once"
    for name, family in named().items():
        assert re.fullmatch(r"tradebot_[a-z_]+", name)
        assert {sample.name for sample in family.samples} <= {name}
        assert not re.search(r"_(ms|s|milliseconds|minutes|mb|percent|count)$", name), name
        assert family.documentation.endswith(".") and len(family.documentation) > 10
        assert len({tuple(sample.labels) for sample in family.samples}) <= 1, "one set of labels for each"


def used_names(expression: str) -> set[str]:
    """Metric names in an expression: identifiers that are neither functions, nor labels, nor words of the language."""
    bare = re.sub(r"\{[^}]*\}|\"[^\"]*\"|\[[^\]]*\]|\b(by|on|without|ignoring)\s*\([^)]*\)", "", expression)
    words = set(re.findall(r"\b[a-zA-Z_:][a-zA-Z0-9_:]*\b(?!\s*\()", bare))
    return words - {"and", "or", "unless", "by", "on", "bool"}


def test_names_are_found_in_expressions() -> None:
    text = 'sum by (a, b) (rate(x_total{job="y"}[5m])) > 3 and on (i) time() - z_seconds == 0'
    assert used_names(text) == {"x_total", "z_seconds"}


def test_the_alert_rules(repo: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (extra test)")
    content = yaml.safe_load((repo / "etc" / "prometheus" / "tradebot.rules.yml").read_text(encoding="utf-8"))
    assert list(content) == ["groups"]
    rules = [rule for group in content["groups"] for rule in group["rules"]]
    assert all(set(group) <= {"name", "interval", "rules"} for group in content["groups"])
    assert len(rules) == len({rule["alert"] for rule in rules}) > 10
    for rule in rules:
        assert set(rule) - {"for"} == {"alert", "expr", "labels", "annotations"}, rule["alert"]
        assert rule["labels"].keys() == {"severity"} and rule["labels"]["severity"] in ("info", "warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description"}
        assert re.fullmatch(r"[0-9]+[smh]", rule.get("for", "1m"))
        assert balanced(rule["expr"])
        names = used_names(rule["expr"])
        assert names and names <= {*named(), *OTHERS}, rule["alert"]
        labels = {label for name in names & named().keys() for s in named()[name].samples for label in s.labels}
        in_text = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        assert in_text <= {*labels, "instance", "job"}, rule["alert"]


def balanced(expression: str) -> bool:
    return all(expression.count(left) == expression.count(right) for left, right in ("()", "{}", "[]"))


def test_the_dashboard(repo: Path) -> None:
    content: dict[str, Any] = json.loads((repo / "etc" / "grafana" / "tradebot.json").read_text(encoding="utf-8"))
    panels = content["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 10
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    expressions += [note["expr"] for note in content["annotations"]["list"]]
    used = set()
    for expression in expressions:
        assert balanced(expression), expression
        used |= used_names(expression)
    assert used <= {*named(), *OTHERS}
    assert set(named()) <= used, "every metric is on the dashboard"
    for one in panels:
        place = one["gridPos"]
        assert place["x"] >= 0 and place["x"] + place["w"] <= 24
        for other in panels:
            assert one is other or not overlapping(place, other["gridPos"]), (one["title"], other["title"])


def overlapping(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(
        one[at] < other[at] + other[size] and other[at] < one[at] + one[size] for at, size in (("x", "w"), ("y", "h"))
    )


@pytest.fixture
def log() -> Log:
    return setup_logging("INFO", "json", RealRuntime(), StringIO())


class Told:
    """What the server reads."""

    status: Status | None = None

    def __call__(self) -> Status | None:
        return self.status


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def server(log: Log, told: Told) -> Iterator[MetricsServer]:
    server = MetricsServer(LOOPBACK, told, RealRuntime(), log)
    yield server
    server.close()


def scrape(server: MetricsServer, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as answer:
        return str(answer.read().decode())


def test_a_scrape_gives_all_metrics_as_they_are_now(server: MetricsServer, told: Told) -> None:
    assert "tradebot_" not in scrape(server), "nothing before the first look"
    told.status = status_of(written_s=RealRuntime().monotonic())
    text = scrape(server)
    for name, family in named().items():
        assert f"# HELP {name} {family.documentation}\n# TYPE {name} {family.type}\n" in text
    assert 'tradebot_refusals_total{reason="RISK_CAP"} 0.0\n' in text
    assert "\nprocess_resident_memory_bytes " in text
    told.status = status_of(counters=dict.fromkeys(COUNTERS, 7))
    assert 'tradebot_refusals_total{reason="RISK_CAP"} 7.0\n' in scrape(server)


def test_what_the_library_makes_of_it_can_be_read_back(server: MetricsServer, told: Told) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    told.status = status_of(counters={name: n for n, name in enumerate(COUNTERS)}, source='odd "name"\n\\')
    read = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(scrape(server))
        for sample in family.samples
    }
    for family in families(told.status, 0.0):
        for name, labels, value, *_ in family.samples:
            if name != "tradebot_status_age_seconds":
                assert read[name, tuple(sorted(labels.items()))] == value


def test_head_has_the_headers_and_no_body(server: MetricsServer, told: Told) -> None:
    told.status = status_of()
    body = len(scrape(server))
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/metrics", method="HEAD")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.read() == b"" and body - 100 < int(answer.headers["Content-Length"]) < body + 100


def test_the_library_still_chooses_format_and_compression(server: MetricsServer, told: Told) -> None:
    told.status = status_of()
    url = f"http://127.0.0.1:{server.port}/metrics"
    headers = {"Accept": "application/openmetrics-text; version=1.0.0", "Accept-Encoding": "gzip"}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        text = gzip.decompress(answer.read()).decode()
    assert "tradebot_run_info" in text and text.endswith("# EOF\n")


@pytest.mark.parametrize(
    ("host", "code"),
    [("localhost", 200), (socket.gethostname(), 200), ("scraped.example:9464", 200), ("evil.example", 403)],
)
def test_only_names_of_this_machine_are_answered(log: Log, told: Told, host: str, code: int) -> None:
    """DNS rebinding: a page in a browser may let a name of its own lead here."""
    config = MetricsConfig(hosts="other.example, scraped.example")
    server = MetricsServer(config, told, RealRuntime(), log)
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/metrics", headers={"Host": host})
    assert connection.getresponse().status == code
    connection.close()
    server.close()


def test_there_is_nothing_elsewhere(server: MetricsServer) -> None:
    with pytest.raises(HTTPError, match="404"):
        scrape(server, "/secret")


def test_a_failing_look_is_a_500_and_a_log_line(told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    stream = StringIO()
    log = setup_logging("INFO", "json", RealRuntime(), stream)

    def read() -> Status | None:
        if told.status is None:
            raise ValueError("not now")
        return told.status

    server = MetricsServer(LOOPBACK, read, RealRuntime(), log)
    with pytest.raises(HTTPError) as caught:
        scrape(server)
    caught.value.close()
    told.status = status_of()
    assert "tradebot_run_info" in scrape(server)
    server.close()
    server.close()
    assert caught.value.code == 500
    assert '"event":"REQUEST_FAILED"' in stream.getvalue()
    assert capsys.readouterr().err == ""
    with pytest.raises(OSError):
        scrape(server)


def test_a_port_in_use_is_said_with_what_to_do(server: MetricsServer, log: Log, told: Told) -> None:
    with pytest.raises(ConfigError, match=rf"127\.0\.0\.1 port {server.port}: .*in use; choose another metrics\.port"):
        MetricsServer(MetricsConfig(port=server.port), told, RealRuntime(), log)


@pytest.mark.parametrize("address", ["192.0.2.1", "no such host", "::ffff:0:0:0"])
def test_an_address_that_is_not_ours_is_said(address: str, log: Log, told: Told) -> None:
    with pytest.raises(ConfigError, match=r"metrics: cannot listen at .* port 0"):
        MetricsServer(MetricsConfig(address=address), told, RealRuntime(), log)
