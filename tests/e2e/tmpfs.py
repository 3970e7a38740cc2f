"""A small separate file system that a test can fill and free again. Skips the test without the right to mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_BLOCK_BYTES = 1 << 16


class SmallDisk:
    """A mounted tmpfs. `fill` uses all its space, `free` releases what `fill` used."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._ballast = place / "ballast"

    def fill(self) -> None:
        """Use all remaining space."""
        fd = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            size = _BLOCK_BYTES
            while size:
                try:
                    os.write(fd, b"x" * size)
                except OSError:
                    size //= 2
        finally:
            os.close(fd)

    def free(self) -> None:
        """Release the space."""
        self._ballast.unlink()

    def make_read_only(self) -> None:
        """Remount it read-only."""
        subprocess.run(["mount", "-o", "remount,ro", self.place], check=True)

    def make_writable(self) -> None:
        """Remount it read-write."""
        subprocess.run(["mount", "-o", "remount,rw", self.place], check=True)


@contextmanager
def small_disk(place: Path, size_mb: int) -> Iterator[SmallDisk]:
    """Mount a tmpfs at `place`; skips the test if that is not permitted."""
    place.mkdir()
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", place], capture_output=True, text=True
        )
    except FileNotFoundError:
        pytest.skip("there is no program mount")
    if mounted.returncode:
        pytest.skip(f"mounting a tmpfs is not permitted here: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(place)
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
