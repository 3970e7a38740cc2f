"""The wire's contract (tradebot/feeds/websocket/transport.py), on loopback and in simulation: the same cases for both.

What exists only where there are bytes (TLS, UTF-8, broken frames, bounds of headers) is in
tests/unit/feeds/websocket/test_client.py.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from tests.contract.peers import GENEROUS, LONG_S, DriveWire, Received, WireStage, drive_wire_real, never
from tests.contract.sim_peer import drive_wire_simulated
from tradebot.core.cancellation import Cancellation
from tradebot.feeds.websocket.transport import (
    CLOSE_ABNORMAL,
    CLOSE_GOING_AWAY,
    CLOSE_TOO_BIG,
    FRAMES_MAX,
    ConnectFailed,
    Connection,
    ConnectionLimits,
    ConnectionLost,
    Frame,
)


@pytest.fixture(params=[drive_wire_real, drive_wire_simulated], ids=["real", "sim"])
def drive(request: pytest.FixtureRequest) -> DriveWire:
    """Runs a case on one of the transports."""
    run: DriveWire = request.param
    return run


def connect(stage: WireStage, limits: ConnectionLimits = GENEROUS) -> Connection:
    return stage.transport.connect(stage.peer.url, limits, never)


def take_frames(connection: Connection, count: int) -> list[Frame]:
    """At least `count` frames, however they are divided among calls."""
    frames: list[Frame] = []
    while len(frames) < count:
        more = connection.receive(LONG_S)
        assert more, "nothing came"
        frames += more
    return frames


def lose(connection: Connection) -> ConnectionLost:
    """The loss that the next frames end with; there are no frames before it."""
    with pytest.raises(ConnectionLost) as caught:
        while not connection.receive(LONG_S):
            pass
        raise AssertionError("frames came")
    return caught.value


def taken_s(stage: WireStage, call: Callable[[], object]) -> float:
    """Seconds that `call` took, without the rounding errors of a difference of floats."""
    begin = stage.runtime.monotonic()
    call()
    return round(stage.runtime.monotonic() - begin, 6)


def test_every_kind_of_frame_comes_in_order(drive: DriveWire) -> None:
    def case(stage: WireStage) -> None:
        connection = connect(stage)
        stage.peer.send_text("")
        stage.peer.send_text('{"price":"1.5"} \u20ac \U0001f600')
        stage.peer.send_binary(b"\x00\xff")
        stage.peer.ping(b"still there?")
        stage.peer.pong(b"unasked")
        stage.peer.send_text("last")
        assert take_frames(connection, 6) == [
            Frame("text"),
            Frame("text", '{"price":"1.5"} \u20ac \U0001f600'),
            Frame("binary", data=b"\x00\xff"),
            Frame("ping", data=b"still there?"),
            Frame("pong", data=b"unasked"),
            Frame("text", "last"),
        ]
        assert stage.peer.take() == Received("pong", b"still there?")
        connection.close()

    drive(case)


def test_a_quiet_connection_is_an_empty_list_after_the_timeout(drive: DriveWire) -> None:
    def case(stage: WireStage) -> None:
        connection = connect(stage)
        assert 0.1 <= taken_s(stage, lambda: connection.receive(0.1)) <= 0.1 + stage.slack_s
        assert connection.receive(0.0) == []
        connection.close()

    drive(case)


def test_the_first_frame_ends_the_wait(drive: DriveWire) -> None:
    def case(stage: WireStage) -> None:
        connection = connect(stage)
        stage.later(0.1, lambda: stage.peer.send_text("late"))
        frames: list[Frame] = []
        assert taken_s(stage, lambda: frames.extend(connection.receive(LONG_S))) <= 0.1 + stage.slack_s
        assert frames == [Frame("text", "late")]
        connection.close()

    drive(case)


def test_a_part_of_a_frame_is_kept(drive: DriveWire) -> None:
    def case(stage: WireStage) -> None:
        connection = connect(stage)
        stage.peer.send_text("whole")
        stage.peer.half_frame("in two halves")
        assert take_frames(connection, 1) == [Frame("text", "whole")]
        assert connection.receive(0.05) == []
        assert connection.receive(0.05) == []
        stage.peer.other_half()
        assert take_frames(connection, 1) == [Frame("text", "in two halves")]
        connection.close()

    drive(case)


def test_one_call_hands_out_a_bounded_number_and_loses_none(drive: DriveWire) -> None:
    def case(stage: WireStage) -> None:
        connection = connect(stage)
        sent = [Frame("text", str(n)) for n in range(3 * FRAMES_MAX)]
        for frame in sent:
            stage.peer.send_text(frame.text)
        received: list[Frame] = []
        while len(received) < len(sent):
            frames = connection.receive(LONG_S)
            assert 1 <= len(frames) <= FRAMES_MAX
            received += frames
        assert received == sent
        connection.close()

    drive(case)


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1013, 4000])
def test_a_close_frame_is_answered_and_ends_it_with_its_code(drive: DriveWire, code: int) -> None:
    def case(stage: WireStage) -> None:
        connection = connect(stage)
        stage.peer.send_text("before")
        stage.peer.close(code, "gone\nfishing")
        assert take_frames(connection, 1) == [Frame("text", "before")]
        error = lose(connection)
        assert error.code == code
        assert str(code) in str(error) and "fishing" in str(error) and str(error).isprintable()
        answer = stage.peer.take()
        assert (answer.kind, answer.code) == ("close", code)
        assert stage.peer.take().kind == "end"

    drive(case)


def test_a_close_frame_without_a_code_is_1005(drive: DriveWire) -> None:
    def case(stage: WireStage) -> None:
        connection = connect(stage)
        stage.peer.close(None)
        assert lose(connection).code == 1005
        assert stage.peer.take() == Received("close")

    drive(case)


def test_an_end_without_a_close_frame_is_abnormal_and_comes_after_the_frames(drive: DriveWire) -> None:
    def case(stage: WireStage) -> None:
        connection = connect(stage)
        stage.peer.send_text("before")
        stage.peer.half_frame("never finished")
        stage.peer.end()
        assert take_frames(connection, 1) == [Frame("text", "before")]
        error = lose(connection)
        assert error.code == CLOSE_ABNORMAL and str(error).isprintable()
        assert stage.peer.take().kind == "end"

    drive(case)


def test_a_reset_is_abnormal(drive: DriveWire) -> None:
    def case(stage: WireStage) -> None:
        connection = connect(stage)
        stage.later(0.05, stage.peer.reset)
        error = lose(connection)
        assert error.code == CLOSE_ABNORMAL and str(error).isprintable()

    drive(case)


def test_a_message_over_the_limit_ends_it_with_1009(drive: DriveWire) -> None:
    def case(stage: WireStage) -> None:
        connection = connect(stage, ConnectionLimits(LONG_S, max_message_bytes=1000))
        stage.peer.send_text("x" * 1000)
        stage.peer.send_text("y" * 1001)
        assert take_frames(connection, 1) == [Frame("text", "x" * 1000)]
        assert lose(connection).code == CLOSE_TOO_BIG
        told = stage.peer.take()
        assert (told.kind, told.code) == ("close", CLOSE_TOO_BIG)
        assert stage.peer.take().kind == "end"

    drive(case)


def test_what_is_sent_arrives(drive: DriveWire) -> None:
    def case(stage: WireStage) -> None:
        connection = connect(stage)
        connection.send_text('{"subscribe":"\u20ac"}')
        connection.send_text("")
        connection.ping()
        assert stage.peer.take() == Received("text", '{"subscribe":"\u20ac"}'.encode())
        assert stage.peer.take() == Received("text")
        assert stage.peer.take() == Received("ping")
        assert [frame.kind for frame in take_frames(connection, 1)] == ["pong"]
        connection.close()

    drive(case)


def test_a_peer_may_leave_pings_unanswered(drive: DriveWire) -> None:
    def case(stage: WireStage) -> None:
        stage.peer.answer_pings = False
        connection = connect(stage)
        connection.ping()
        assert stage.peer.take() == Received("ping")
        assert connection.receive(0.1) == []
        connection.close()

    drive(case)


def test_close_tells_the_peer_and_does_not_wait_for_it(drive: DriveWire) -> None:
    def case(stage: WireStage) -> None:
        connection = connect(stage)
        assert taken_s(stage, lambda: connection.close(CLOSE_GOING_AWAY)) <= stage.slack_s
        assert stage.peer.take() == Received("close", struct.pack("!H", CLOSE_GOING_AWAY))
        assert stage.peer.take().kind == "end"
        connection.close()

    drive(case)


def test_close_after_a_loss_does_nothing(drive: DriveWire) -> None:
    def case(stage: WireStage) -> None:
        connection = connect(stage)
        stage.peer.end()
        lose(connection)
        connection.close()
        assert stage.peer.take().kind == "end"

    drive(case)


@pytest.mark.parametrize(("retry_after", "expected"), [(None, None), ("7", 7.0), ("soon", None), ("-1", None)])
def test_a_refused_handshake_tells_status_and_when_to_come_back(
    drive: DriveWire, retry_after: str | None, expected: float | None
) -> None:
    def case(stage: WireStage) -> None:
        for status in (429, 503):
            stage.peer.refuse(status, retry_after)
            with pytest.raises(ConnectFailed) as caught:
                connect(stage)
            assert (caught.value.status, caught.value.retry_after_s) == (status, expected)
            assert str(status) in str(caught.value) and str(caught.value).isprintable()
        connect(stage).close()

    drive(case)


def test_nothing_listens(drive: DriveWire) -> None:
    def case(stage: WireStage) -> None:
        stage.peer.go_down()
        with pytest.raises(ConnectFailed) as caught:
            connect(stage)
        assert caught.value.status is None and "refused" in str(caught.value)

    drive(case)


def test_a_handshake_that_is_hung_up_on(drive: DriveWire) -> None:
    def case(stage: WireStage) -> None:
        stage.peer.hang_up()
        with pytest.raises(ConnectFailed) as caught:
            connect(stage)
        assert caught.value.status is None and str(caught.value).isprintable()

    drive(case)


def test_a_handshake_that_never_ends_is_over_at_the_deadline(drive: DriveWire) -> None:
    def case(stage: WireStage) -> None:
        stage.peer.stay_mute()

        def attempt() -> None:
            with pytest.raises(ConnectFailed, match=r"0\.3 s"):
                connect(stage, ConnectionLimits(0.3, 1000))

        assert 0.3 <= taken_s(stage, attempt) <= 0.3 + stage.slack_s

    drive(case)


def test_a_stop_gives_the_attempt_up(drive: DriveWire) -> None:
    def case(stage: WireStage) -> None:
        stage.peer.stay_mute()
        stop = Cancellation(stage.runtime)
        stage.later(0.1, stop.request)

        def attempt() -> None:
            with pytest.raises(ConnectFailed):
                stage.transport.connect(stage.peer.url, GENEROUS, stop)

        assert taken_s(stage, attempt) <= 0.1 + 0.5 + stage.slack_s

    drive(case)


def test_connections_follow_one_another(drive: DriveWire) -> None:
    def case(stage: WireStage) -> None:
        for n in range(3):
            connection = connect(stage)
            stage.peer.send_text(str(n))
            assert take_frames(connection, 1) == [Frame("text", str(n))]
            stage.peer.close(1012)
            assert lose(connection).code == 1012

    drive(case)


def test_fetch_gives_the_text_of_the_answer(drive: DriveWire) -> None:
    def case(stage: WireStage) -> None:
        stage.peer.answer('{"token":"\u20ac"}')
        assert stage.transport.fetch(stage.peer.fetch_url, GENEROUS, never) == '{"token":"\u20ac"}'

    drive(case)


def test_fetch_refused_hung_up_mute_and_down(drive: DriveWire) -> None:
    def case(stage: WireStage) -> None:
        stage.peer.refuse(429, "3")
        stage.peer.hang_up()
        stage.peer.stay_mute()
        failures = []
        for _ in range(3):
            with pytest.raises(ConnectFailed) as caught:
                stage.transport.fetch(stage.peer.fetch_url, ConnectionLimits(0.2, 1000), never)
            failures.append((caught.value.status, caught.value.retry_after_s))
        assert failures == [(429, 3.0), (None, None), (None, None)]
        stage.peer.go_down()
        with pytest.raises(ConnectFailed, match="refused"):
            stage.transport.fetch(stage.peer.fetch_url, GENEROUS, never)

    drive(case)
