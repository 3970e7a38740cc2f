"""The engine with real, free-running threads of which some are slow or die: run by test_overload.py, as a program.

usage: slow_engine.py FAULTS OPTION...      FAULTS: JSON, {"delays_s": {THREAD: S}, "crashes": {THREAD: NTH}}
"""

from __future__ import annotations

import json
import os
import sys

from sim.world.slow_threads import FaultyRuntime
from tradebot.cli.arguments import parse
from tradebot.cli.resolve import resolve
from tradebot.core.runtime import RealRuntime
from tradebot.engine import Edges, run_engine


def main(faults: str, *options: str) -> int:
    """Run the engine with its runtime wrapped; returns its exit code."""
    settings = resolve(parse(options), os.environ)
    return int(run_engine(settings, Edges(runtime=FaultyRuntime(RealRuntime(), **json.loads(faults)))))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
