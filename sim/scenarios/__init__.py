"""Named scenarios: a script of settings, faults and expectations over a `World`. The seed draws the details.

A new one is a function with `@scenario` in a module of this folder: it runs processes in the world and asserts what
must have come of them. Modules are found by themselves. docs/determinism.md has an example of ten lines, and where to
look for what.
"""

import importlib
import pkgutil

from sim.scenarios.common import SCENARIOS, Scenario, scenario

__all__ = ["SCENARIOS", "Scenario", "scenario"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
