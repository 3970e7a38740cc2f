"""The bar itself. Apart from `progress_bar`, so that only a terminal pays for importing tqdm (15 ms of each start)."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:
    _Tqdm = tqdm[Any]  # generic in its stubs only
else:
    _Tqdm = tqdm

# No watcher thread: threads are started in one place only, and this bar is updated often enough by itself.
tqdm.monitor_interval = 0


class TickBar(_Tqdm):
    """tqdm's bar with the average rate of ticks behind it, worked out only when it is drawn."""

    ticks: int | None = 0

    @property
    def format_dict(self) -> MutableMapping[str, Any]:
        """See tqdm; the postfix is ours."""
        values = super().format_dict
        elapsed_s = values["elapsed"]
        if self.ticks is not None:
            values["postfix"] = f"{self.ticks / elapsed_s if elapsed_s > 0 else 0.0:,.0f} ticks/s"
        return values
