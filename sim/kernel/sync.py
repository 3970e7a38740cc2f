"""Lock, condition, event and thread of tradebot.core.runtime, on the scheduler's waits."""

from __future__ import annotations

from types import TracebackType

from sim.kernel.errors import SimKilled
from sim.kernel.scheduler import Scheduler
from sim.kernel.timers import BatonThread, BatonWait


class SimLock:
    """A lock; entering it is a scheduling point. Entering it twice raises RuntimeError; a real lock would hang."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._owner: BatonThread | None = None
        self._world_has_it = False
        self._waiting: list[BatonWait] = []

    def __enter__(self) -> bool:
        scheduler = self._scheduler
        if scheduler.current is None:
            if self._owner is not None or self._world_has_it:
                owner = self._owner.label if self._owner is not None else "the world"
                raise RuntimeError(f"the lock is held by {owner} and the world may not wait for it")
            self._world_has_it = True
            return True
        scheduler.point()
        self.take()
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()  # also after a kill, when this thread may not hold it: no thread can enter any more
        self._scheduler.interrupt()

    @property
    def held(self) -> bool:
        """Whether the calling thread (or the world, for its own calls) holds the lock."""
        current = self._scheduler.current
        return self._world_has_it if current is None else self._owner is current

    def take(self) -> None:
        """Acquire the lock; park while another thread holds it. A later thread may overtake, as with a real lock."""
        scheduler = self._scheduler
        me = scheduler.current
        while self._owner is not None:
            if self._owner is me:
                raise RuntimeError(f"{self._owner.label} takes a lock it already holds: the real one would hang")
            self._waiting.append(scheduler.new_wait(None))
            scheduler.park(f"waits for a lock held by {self._owner.label}")
        self._owner = me

    def release(self) -> None:
        """Release the lock and let one waiting thread try again. Not a scheduling point."""
        self._owner = None
        self._world_has_it = False
        if self._waiting:
            self._scheduler.wake(self._waiting.pop(self._scheduler.choose(len(self._waiting))))


class SimCondition:
    """A condition variable; wakes waiters in any order and, in some histories, spuriously.

    A waiter that has timed out but has not run yet can still consume a `notify`, as with `threading.Condition`.
    """

    def __init__(self, scheduler: Scheduler, lock: SimLock, spurious_chance: float) -> None:
        self._scheduler = scheduler
        self._lock = lock
        self._spurious_chance = spurious_chance
        self._waiters: list[BatonWait] = []

    def __enter__(self) -> bool:
        return self._lock.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.__exit__(kind, error, trace)

    def wait(self, timeout: float | None = None) -> bool:
        """See `tradebot.core.runtime.Condition`. Raises RuntimeError if the caller does not hold the lock."""
        scheduler = self._scheduler
        if scheduler.dead is not None:
            raise SimKilled
        if not self._lock.held:
            raise RuntimeError("cannot wait on un-acquired lock")
        wait = scheduler.new_wait(timeout)
        if self._spurious_chance and scheduler.random() < self._spurious_chance:
            scheduler.wake(wait)
        else:
            self._waiters.append(wait)
        self._lock.release()
        scheduler.park("waits on a condition" + _until(timeout))
        _forget(self._waiters, wait)
        self._lock.take()
        return not wait.timed_out

    def notify(self, n: int = 1) -> None:
        """Wake `n` waiters. Raises RuntimeError if the caller does not hold the lock."""
        if self._scheduler.dead is not None:
            return
        if not self._lock.held:
            raise RuntimeError("cannot notify on un-acquired lock")
        for _ in range(min(n, len(self._waiters))):
            self._scheduler.wake(self._waiters.pop(self._scheduler.choose(len(self._waiters))))

    def notify_all(self) -> None:
        """Wake all waiters."""
        self.notify(len(self._waiters))


class SimEvent:
    """A flag to wait for."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._flag = False
        self._waiters: list[BatonWait] = []

    def set(self) -> None:
        """Set the flag and wake all waiters. Never parks, but may be interrupted before and after."""
        if self._scheduler.dead is None:
            self._scheduler.interrupt()
            self._flag = True
            waiters, self._waiters = self._waiters, []
            for wait in waiters:
                self._scheduler.wake(wait)
            self._scheduler.interrupt()

    def clear(self) -> None:
        """Clear the flag."""
        if self._scheduler.dead is None:
            self._flag = False

    def is_set(self) -> bool:
        """Return the flag. Never parks, but may be interrupted before it returns."""
        flag = self._flag
        self._scheduler.poll()
        return flag

    def wait(self, timeout: float | None = None) -> bool:
        """See `tradebot.core.runtime.Event`. A wait ended by `set` returns True even if `clear` followed."""
        scheduler = self._scheduler
        if self._flag:
            scheduler.point()
            return True
        wait = scheduler.new_wait(timeout)
        self._waiters.append(wait)
        scheduler.park("waits for an event" + _until(timeout))
        _forget(self._waiters, wait)
        return not wait.timed_out


class SimThread:
    """A started thread of the simulation."""

    def __init__(self, scheduler: Scheduler, thread: BatonThread) -> None:
        self._scheduler = scheduler
        self._thread = thread

    @property
    def name(self) -> str:
        """The name given to `spawn`."""
        return self._thread.name

    def join(self, timeout: float | None = None) -> None:
        """Block until the thread has ended or `timeout` seconds have passed. Raises RuntimeError for the own thread."""
        scheduler, thread = self._scheduler, self._thread
        if scheduler.current is thread:
            raise RuntimeError("cannot join current thread")
        if thread.finished:
            scheduler.point()
            return
        wait = scheduler.new_wait(timeout)
        thread.joiners.append(wait)
        scheduler.park(f"joins {thread.label}" + _until(timeout))
        _forget(thread.joiners, wait)

    def is_alive(self) -> bool:
        """Whether the thread has not ended. Never parks, but may be interrupted before it returns."""
        alive = not self._thread.finished
        self._scheduler.poll()
        return alive


def _forget(waits: list[BatonWait], wait: BatonWait) -> None:
    """Remove `wait` from `waits`, unless the thread that ended it has done so."""
    if wait in waits:
        waits.remove(wait)


def _until(timeout: float | None) -> str:
    return "" if timeout is None else f", at most {timeout} s"
