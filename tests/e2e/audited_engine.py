"""The engine under an audit hook that ends the process at any use of a socket; run by test_no_network.py."""

from __future__ import annotations

import os
import sys

SOCKET_USED = 97


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event.startswith("socket."):
        # Immediately, and without running exception handlers.
        os.write(2, f"audit: {event} {arguments!r}\n".encode())
        os._exit(SOCKET_USED)


def main(argv: list[str]) -> int:
    """Run the engine; returns its exit code, or SOCKET_USED."""
    sys.addaudithook(_watch)
    if argv == ["--open-a-socket"]:
        import socket

        socket.socket()
        return 0
    from tradebot.cli.main import main as tradebot

    return tradebot(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
