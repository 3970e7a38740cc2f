"""The stacks of simulated threads, for the texts of errors."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sim.kernel.timers import BatonThread

_OURS: Final = ("runtime.py", "scheduler.py", "stacks.py", "switching.py", "sync.py", "../world/machine.py")
_MACHINERY: Final = frozenset([threading.__file__, *(str((Path(__file__).parent / name).resolve()) for name in _OURS)])


def stacks_of(threads: Sequence[BatonThread]) -> str:
    """Each thread's label, what it waits for, and its stack without the frames of the simulator's machinery."""
    frames = sys._current_frames()
    parts = []
    for thread in threads:
        parts.append(f"--- {thread.label}: {thread.doing}\n")
        frame = frames.get(thread.ident)
        if frame is not None:
            stack = [entry for entry in traceback.extract_stack(frame) if entry.filename not in _MACHINERY]
            parts.extend(traceback.format_list(stack))
    return "".join(parts)
