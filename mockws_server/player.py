"""Plays scenarios, recordings and the actions of control messages, at their times and in separate threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from mockws_server.actions import Action, Burst, Ticks, Wait, describe
from mockws_server.hub import Hub
from mockws_server.recording import UNTIMED_PER_S, RecordedMessage, RecordingSchedule
from mockws_server.script import Script, ScriptSchedule

CONTROLS_RUNNING_MAX: Final = 16
"""The maximum number of control messages that take time (ticks, bursts) and run concurrently."""

_LOOK_S: Final = 0.2


class Player:
    """Plays at the times of a clock. `control` may be called by any thread and never blocks; the others block."""

    def __init__(self, hub: Hub, say: Callable[[str], None], stop: threading.Event) -> None:
        self._hub = hub
        self._say = say
        self._stop = stop
        self._control_slots = threading.Semaphore(CONTROLS_RUNNING_MAX)
        self.showing = "waiting for ticks"
        """What is currently being played, for the status line."""

    def control(self, action: Action) -> None:
        """Perform the action of a control message: immediately or, if it takes time, in a new thread."""
        note = f"control: {describe(action)}"
        if isinstance(action, Wait):
            self._say(f"{note}: ignored, it has a meaning only in a scenario")
        elif not isinstance(action, Ticks | Burst):
            self._hub.perform(action, note)
        elif self._control_slots.acquire(blocking=False):
            self._say(f"{note}{self._hub.recipients()}")
            threading.Thread(target=self._play_control, args=(action,), name="control", daemon=True).start()
        else:
            self._say(f"{note}: ignored, {CONTROLS_RUNNING_MAX} control messages are still being played")

    def wait_clients(self, count: int) -> bool:
        """Wait until `count` clients are connected; False if the program ends first."""
        if self._hub.clients < count:
            self.showing = f"waiting for {'a client' if count == 1 else f'{count} clients'}"
            self._say(self.showing)
        while not self._stop.is_set():
            if self._hub.wait_clients(count, _LOOK_S):
                return True
        return False

    def play_script(self, script: Script) -> None:
        """Play a script until it or the program ends, and report each step.

        Handshake faults still pending at the end of a round are removed.
        """
        schedule = ScriptSchedule(script, time.monotonic())
        announced: tuple[int, int] | None = None
        while self._wait_until(schedule.next_at()):
            step = schedule.step
            if step is not None and step[:2] != announced:
                if announced is not None and step[0] != announced[0]:
                    # Otherwise they accumulate in rounds without a client, and lock out the next one.
                    self._hub.clear_handshake_faults()
                announced = step[:2]
                self.showing = f"{script.name}: step {step[1]} of {len(script.steps)}: {describe(step[2])}"
                self._say(f"{describe(step[2])}{self._hub.recipients()}")
            self._perform(schedule.due(time.monotonic()))

    def play_recording(self, name: str, source: Iterator[RecordedMessage | None], speed: float | None) -> None:
        """Play a recording until it or the program ends."""
        self.showing = f"replaying {name}"
        self._say(f"{self.showing}{self._hub.recipients()}")
        schedule = RecordingSchedule(source, speed, time.monotonic())
        announced = False
        while self._wait_until(schedule.next_at()):
            if schedule.untimed and speed is not None and not announced:
                announced = True
                self._say(f"lines without a time are sent {UNTIMED_PER_S * speed:g} a second")
            frames = schedule.due(time.monotonic())
            if frames and self._wait_room():
                self._hub.external(frames)

    def _play_control(self, action: Ticks | Burst) -> None:
        try:
            schedule = ScriptSchedule(Script("control", (action,)), time.monotonic())
            while self._wait_until(schedule.next_at()):
                self._perform(schedule.due(time.monotonic()))
        finally:
            self._control_slots.release()

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            if not isinstance(action, Burst) or self._wait_room():
                self._hub.perform(action)

    def _wait_until(self, due_s: float | None) -> bool:
        """Wait for that time; False if it is None or the program ends first."""
        if due_s is None:
            return False
        wait_s = due_s - time.monotonic()
        if wait_s > 0:
            self._stop.wait(wait_s)
        return not self._stop.is_set()

    def _wait_room(self) -> bool:
        while not self._stop.is_set():
            if self._hub.has_room(_LOOK_S):
                return True
        return False
