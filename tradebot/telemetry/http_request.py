"""Requests that the small HTTP server takes: bytes in, a request or its refusal out. Pure.

Only what a scraper or a browser needs: GET and HEAD without a body, one request a connection. The Host header is
checked, because a web page may point a name of its own at a local address (DNS rebinding) and then read the answers as
if they were its own: a name that the operator never gave to this machine is refused.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

HEAD_BYTES_MAX: Final = 8192
"""The longest request line and headers together."""

_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
_REQUEST_LINE: Final = re.compile(r"([A-Z]{1,20}) ([!-~]+) HTTP/([0-9])\.([0-9])")
_HEADER: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")
_PORT: Final = re.compile(r":[0-9]{1,5}")


class Request(NamedTuple):
    """What was asked for. `headers` by name in lower case; of a repeated header the values with commas between."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]


class HttpRefusal(NamedTuple):
    """The answer to what is no request for us: status, a line for the client, and further headers."""

    status: str
    text: str
    headers: tuple[tuple[str, str], ...] = ()


def read_request(received: bytes, hosts: frozenset[str]) -> Request | HttpRefusal | None:
    """The request at the beginning of `received`; None while its head is not whole.

    `hosts` are the names (lower case) under which the server may be addressed; IP addresses are always right.
    """
    end = _HEAD_END.search(received, 0, HEAD_BYTES_MAX)
    if end is None:
        if len(received) < HEAD_BYTES_MAX:
            return None
        return HttpRefusal("431 Request Header Fields Too Large", f"at most {HEAD_BYTES_MAX} bytes are read")
    # Every byte is a character of latin-1, so that nothing is lost and nothing fails.
    first, *lines = received[: end.start()].decode("latin-1").replace("\r\n", "\n").split("\n")
    line = _REQUEST_LINE.fullmatch(first)
    if line is None:
        return _bad("the request line is not METHOD PATH HTTP/1.1")
    method, target, major, minor = line.groups()
    if major != "1":
        return HttpRefusal("505 HTTP Version Not Supported", "only HTTP/1.1 is supported")
    headers: dict[str, str] = {}
    for text in lines:
        header = _HEADER.fullmatch(text)
        if header is None:
            return _bad("a header is not NAME: VALUE")
        name, value = header[1].lower(), header[2]
        if name == "host" and name in headers:
            return _bad("there are two Host headers")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if "host" not in headers and minor != "0":
        return _bad("there is no Host header")
    if "host" in headers and not host_is_ours(headers["host"], hosts):
        return HttpRefusal("403 Forbidden", "the Host header names another host; add it to metrics.hosts")
    if method not in ("GET", "HEAD"):
        return HttpRefusal("405 Method Not Allowed", "only GET and HEAD", (("Allow", "GET, HEAD"),))
    if not target.startswith("/"):
        return _bad("the target is not a path")
    path, _, query = target.partition("?")
    return Request(method, path, query, headers)


def host_is_ours(value: str, hosts: frozenset[str]) -> bool:
    """Whether a Host header holds an IP address or one of `hosts`, with or without a port."""
    if value.startswith("["):
        address, bracket, port = value[1:].partition("]")
        return bool(bracket) and _is_address(address, 6) and (not port or _PORT.fullmatch(port) is not None)
    name, colon, port = value.partition(":")
    if colon and port and _PORT.fullmatch(colon + port) is None:
        return False
    return _is_address(name, 4) or name.lower().removesuffix(".") in hosts


def _is_address(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


def _bad(text: str) -> HttpRefusal:
    return HttpRefusal("400 Bad Request", text)
