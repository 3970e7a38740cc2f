"""A unit of etc/systemd as a user's own service manager can run it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

# Needs a privilege that a user's service manager has not, or (PrivateUsers and what builds on it) user namespaces,
# which some distributions deny to users: there the unit would not start at all.
SYSTEM_ONLY: Final = frozenset({
    "AmbientCapabilities", "BindPaths", "BindReadOnlyPaths", "CapabilityBoundingSet", "DevicePolicy", "DynamicUser",
    "IPAddressAllow", "IPAddressDeny", "NoExecPaths", "PrivateDevices", "PrivateIPC", "PrivateMounts",
    "PrivateNetwork", "PrivateTmp", "PrivateUsers", "ProcSubset", "ProtectClock", "ProtectControlGroups",
    "ProtectHome", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables",
    "ProtectProc", "ProtectSystem", "RemoveIPC", "StateDirectory", "StateDirectoryMode", "TemporaryFileSystem", "User",
})  # fmt: skip
_NETWORK: Final = "network-online.target"


def for_user(unit: str) -> str:
    """The unit without what only the system's service manager can do; a comment goes with what it explains."""
    kept = [block for block in map(_user_block, _blocks(unit)) if block]
    text = "".join(line for block in kept for line in block)
    text = text.replace("WantedBy=multi-user.target", "WantedBy=default.target")
    text = re.sub(r"--unit=\S+", r'\g<0> "--systemctl=systemctl --user"', text)
    return re.sub(r"\n{3,}", "\n\n", text)


def _blocks(unit: str) -> Iterator[list[str]]:
    """Lines in groups: comments with the directives that follow them; section headers and empty lines alone."""
    block: list[str] = []
    for line in unit.splitlines(keepends=True):
        comment, alone = line.startswith("#"), line.startswith(("[", "\n"))
        if block and (alone or (comment and not block[-1].startswith("#"))):
            yield block
            block = []
        if alone:
            yield [line]
        else:
            block.append(line)
    if block:
        yield block


def _user_block(block: list[str]) -> list[str]:
    directives = [line for line in block if not line.startswith(("#", "[", "\n"))]
    kept = [line for line in directives if line.partition("=")[0] not in SYSTEM_ONLY and _NETWORK not in line]
    return block if kept == directives else [line for line in block if line.startswith("#")] + kept if kept else []
