"""Named scenarios: each combines settings, faults and expectations over a `World`. The seed draws the details.

A scenario is a function with `@scenario` in a module of this folder: it runs processes in the world and asserts their
results. Modules are discovered automatically. docs/determinism.md has an example of ten lines.
"""

import importlib
import pkgutil

from sim.scenarios.common import SCENARIOS, Scenario, scenario

__all__ = ["SCENARIOS", "Scenario", "scenario"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
