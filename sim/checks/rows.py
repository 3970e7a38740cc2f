"""Compares stored rows with those of a reference, and says where they differ first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def compare(
    what: str, stored: Sequence[tuple[Any, ...]], wanted: Sequence[tuple[Any, ...]], whole: bool = True
) -> None:
    """The stored rows are those of the reference; not `whole`: the first of them. Raises AssertionError."""
    if not whole:
        wanted = wanted[: len(stored)]
    for index, (one, other) in enumerate(zip(stored, wanted, strict=False)):
        assert one == other, f"{what}[{index}]: stored {one}, the reference has {other}"
    if len(stored) != len(wanted):
        rest, kind = (wanted, "missing") if len(stored) < len(wanted) else (stored, "too many")
        first = rest[min(len(stored), len(wanted))]
        raise AssertionError(
            f"{what}: stored {len(stored)}, the reference has {len(wanted)}; the first that is {kind}: {first}"
        )
