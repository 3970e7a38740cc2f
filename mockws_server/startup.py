"""The entry point of the installed program `mockws`. It imports little, as `tradebot.cli.startup` explains."""

from __future__ import annotations

from tradebot.cli.startup import end_quietly


def mockws() -> int:
    """The console script `mockws`."""
    end_quietly(0)
    from mockws_server.cli import main

    return main()
