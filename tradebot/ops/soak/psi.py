"""PSI, the kernel's pressure stall information: the share of time in which tasks were stalled for want of a resource.

It is stall time and nothing else: a machine can be fully at work without pressure, and under pressure while half idle.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Final, Literal, NamedTuple

from msgspec import Struct
from msgspec.structs import asdict

from tradebot.output.redaction import clip, escape

DEFAULT_ROOT: Final = Path("/proc/pressure")
Resource = Literal["cpu", "memory", "io"]
RESOURCES: Final[tuple[Resource, ...]] = ("cpu", "memory", "io")

_KINDS: Final = ("some", "full")
_BYTES_MAX: Final = 4096
_RAW_CHARS_MAX: Final = 200
_AVG10: Final = re.compile(r"(?:^|\s)avg10=([0-9]{1,3}(?:\.[0-9]{1,6})?)(?=\s|$)")


class Pressure(Struct, frozen=True):
    """The readings of all three files: the unchanged lines of the kernel, and their avg10.

    avg10 is how many of every hundred moments of the last ten seconds were stalled, 0 to 100. None where the
    kernel gave no line, as older ones do for "full" of cpu; avg10 alone is None for a damaged line.
    """

    cpu_some_raw: str | None = None
    cpu_some_avg10: float | None = None
    cpu_full_raw: str | None = None
    cpu_full_avg10: float | None = None
    memory_some_raw: str | None = None
    memory_some_avg10: float | None = None
    memory_full_raw: str | None = None
    memory_full_avg10: float | None = None
    io_some_raw: str | None = None
    io_some_avg10: float | None = None
    io_full_raw: str | None = None
    io_full_avg10: float | None = None

    def some_avg10(self, resource: Resource) -> float | None:
        """The avg10 of a resource's "some" line."""
        value: float | None = getattr(self, f"{resource}_some_avg10")
        return value

    def as_fields(self) -> dict[str, str | float | None]:
        """All twelve, in order."""
        return asdict(self)


class PsiLook(NamedTuple):
    """The readings and, for people, what could not be read."""

    pressure: Pressure
    problems: tuple[str, ...]


def read_psi(root: Path = DEFAULT_ROOT) -> PsiLook:
    """Read the files cpu, memory and io in `root`. Blocks as procfs does; errors are part of the result."""
    found: dict[str, str | float | None] = {}
    problems: list[str] = []
    for resource in RESOURCES:
        path = root / resource
        try:
            with path.open("rb") as file:
                text = file.read(_BYTES_MAX).decode("utf-8", "backslashreplace")
        except OSError as error:
            problems.append(f"PSI {path}: {error.strerror}")
            continue
        fields, faults = parse_psi(resource, text)
        found.update(fields)
        problems += [f"PSI {path}: {fault}" for fault in faults]
    return PsiLook(Pressure(**found), tuple(problems))  # type: ignore[arg-type]  # names and types are parse_psi's


def parse_psi(resource: Resource, text: str) -> tuple[dict[str, str | float | None], list[str]]:
    """The fields of `Pressure` in one file, and its errors. Pure."""
    found: dict[str, str | float | None] = {}
    faults: list[str] = []
    for line in text.splitlines():
        kind = line.split(maxsplit=1)[0] if line.strip() else ""
        if kind not in _KINDS:
            if kind:
                faults.append(f"unknown line {_shown(line)}")
            continue
        if f"{resource}_{kind}_raw" in found:
            faults.append(f"a second line {kind!r}")
            continue
        avg10 = _avg10(line)
        found[f"{resource}_{kind}_raw"] = clip(line, _RAW_CHARS_MAX)
        found[f"{resource}_{kind}_avg10"] = avg10
        if avg10 is None:
            faults.append(f"no avg10 from 0 to 100 in {_shown(line)}")
    if f"{resource}_some_raw" not in found:
        faults.append("no line 'some'")
    return found, faults


def _avg10(line: str) -> float | None:
    match = _AVG10.search(line)
    value = math.inf if match is None else float(match[1])
    return value if value <= 100.0 else None


def _shown(line: str) -> str:
    return repr(escape(clip(line, 60)))
