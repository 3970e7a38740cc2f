"""(b) Only decodes a replay file, with the replay's own reader: `python -m bench.decode TICKS.jsonl`."""

from __future__ import annotations

import json
import sys
import time

from tradebot.feeds.replay.feed import FileReplay


def main() -> None:
    """Measure once; one JSON object on standard output."""
    feed = FileReplay(sys.argv[1])
    ticks = 0
    begin = time.perf_counter()
    while (batch := feed.read()) is not None:
        ticks += len(batch.ticks)
    seconds = time.perf_counter() - begin
    feed.close()
    print(json.dumps({"seconds": seconds, "ticks": ticks}))


if __name__ == "__main__":
    main()
