"""One history that uses every part of the simulated runtime: `python -m tests.contract.history SEED ...` prints hashes.

Needs nothing but the standard library, the channel and what sim/ imports, so that any interpreter can be asked.
"""

from __future__ import annotations

import sys

from sim import SimRuntime
from tradebot.core.channel import Channel, ChannelClosed


def history(seed: int) -> SimRuntime:
    """Run it; the finished runtime."""
    runtime = SimRuntime(seed)
    ticks: Channel[list[int]] = Channel(runtime, "ticks", 4)
    stop = runtime.event()
    counts = {name: 0 for name in ("alpha", "beta", "gamma")}
    lock = runtime.lock()

    def producer() -> None:
        dice = runtime.stream("feed")
        for i in range(40):
            ticks.send([i] * (1 + dice.getrandbits(2)))
            if dice.random() < 0.3:
                runtime.sleep(dice.random() / 100)
        ticks.close()

    def consumer() -> None:
        total = 0
        try:
            while True:
                part = [event for chunk in ticks.take(3, 0.004) for event in chunk]
                total += sum(part)
                runtime.note("took", len(part), runtime.now_ms(), runtime.monotonic())
        except ChannelClosed:
            runtime.note("sum", total)

    def counter(name: str) -> None:
        while not stop.wait(0.01):
            with lock:
                counts[name] += 1

    def main() -> None:
        runtime.catch_stop_signals()
        counters = [runtime.spawn("counter", lambda name=name: counter(name)) for name in counts]  # type: ignore[misc]
        pipeline = [runtime.spawn("producer", producer), runtime.spawn("consumer", consumer)]
        while not runtime.stop_signals():
            runtime.sleep(0.05)
        stop.set()
        for thread in [*pipeline, *counters]:
            thread.join()
        runtime.note(*counts.values(), runtime.token())

    runtime.call_at(0.2, lambda: runtime.jump_wall(-5_000))
    runtime.call_at_step(300, lambda: runtime.note("step 300"))
    runtime.call_at(0.5, runtime.send_signal)
    runtime.run(main)
    return runtime


if __name__ == "__main__":
    print(*(history(int(seed)).history_hash() for seed in sys.argv[1:]), sep="\n")
