"""What channels carry instead of single events: several of one type, in order."""

from __future__ import annotations

from typing import Self, TypeVar

T = TypeVar("T")


class Chunk(list[T]):
    """Consecutive events of one type, as channels carry them. A slice is a plain list: `part` gives a chunk."""

    __slots__ = ()

    def part(self, begin: int, end: int | None = None) -> Self:
        """The chunk of the events from index `begin` up to `end`, which is left out."""
        return type(self)(self[begin:end])
