"""Named scenarios: a script of settings, faults and expectations over a `World`. The seed draws the details.

A new one is a function with `@scenario` in a module of this folder: it runs processes in the world and asserts what
must have come of them. Modules are found by themselves. For example:

    @scenario
    def lunch_break(world: World) -> None:
        "A market that is silent for minutes while the disk is slow: the link stays, and everything is stored."
        exchange = exchange_of(world, Ticks(50, 10.0), Wait(300.0), Ticks(world.between(10, 90), 5.0))
        settings = live_settings(world, engine__run_seconds=330.0, persist__batch_size=1)
        outcome = run_live(world, settings, exchange, storage=StorageFaults(slow_s=0.2))
        assert not outcome.events("LINK_LOST")
        assert outcome.event("FINAL METRICS")["ingest_received"] == len(exchange.sent)

The weather is that of `mockws_server.actions`; what the world can do to a process stands in `sim.world.Faults`; what is
checked after every run, in `sim.checkers`. Then `python -m sim --scenario=lunch_break --seeds=100`.
"""

import importlib
import pkgutil

from sim.scenarios.common import SCENARIOS, Scenario, scenario

__all__ = ["SCENARIOS", "Scenario", "scenario"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
