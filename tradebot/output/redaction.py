"""Text made safe to show: credentials in URLs masked, characters that act on a terminal escaped, length bounded."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

MASK: Final = "***"

# Whole runs of characters that schemes are made of: to begin at any letter of one would cost quadratic time. A URL ends
# where the next one begins ("ws://a,ws://b"): otherwise the second one's credentials would pass as a path.
_SCHEME: Final = r"(?<![A-Za-z0-9+.\-])[A-Za-z0-9+.\-]+://"
_URL: Final = re.compile(rf'({_SCHEME})((?:(?!{_SCHEME})[^\s"<>])*)')
_AUTHORITY_END: Final = re.compile(r"[/?#\\]")
_PARAMETER_SEPARATOR: Final = re.compile(r"([?&;#])")
# What a sentence may put right behind a URL.
_PUNCTUATION: Final = "',.;)}"
_SENSITIVE_PARTS: Final = (
    "token", "secret", "signature", "password", "passwd", "passphrase", "credential", "auth", "session", "cookie",
)  # fmt: skip
_SENSITIVE_NAMES: Final = frozenset({"sig", "sign", "pw", "pwd", "pass", "sid", "jwt", "hmac"})
# An unguessable path segment is what makes a webhook or a listen key: at least this long, letters and digits mixed.
_SECRET_SEGMENT: Final = re.compile(r"(?=[^/]*[0-9])(?=[^/]*[A-Za-z])[A-Za-z0-9_\-:]{20,}")
_BOT_SEGMENT: Final = re.compile(r"bot[0-9]+:", re.IGNORECASE)


def mask(text: str) -> str:
    """`text` with the credentials of every URL in it replaced by ***; everything else stays.

    Masked are user and password before the host, the values of query and fragment parameters that are named like
    secrets (token, key, signature ...), and webhook paths. Costs one substring search when there is no "://".
    When in doubt too much is masked rather than too little.
    """
    return _URL.sub(_mask_url, text) if "://" in text else text


def mask_path(url: str) -> str:
    """A URL of which all but scheme, host and port is masked: of a webhook anything else may be the secret."""
    scheme, separator, rest = url.partition("://")
    authority = _AUTHORITY_END.split(rest, maxsplit=1)[0]
    masked = mask(f"{scheme}{separator}{authority}")
    return masked if authority == rest else f"{masked}/{MASK}"


def _mask_url(found: re.Match[str]) -> str:
    scheme, rest = found[1], found[2]
    return scheme + (rest if scheme.lower() == "file://" else _mask_after_scheme(rest))


def _mask_after_scheme(rest: str) -> str:
    end = _AUTHORITY_END.search(rest)
    cut = end.start() if end else len(rest)
    authority, tail = rest[:cut], rest[cut:]
    if "@" in authority:
        host = authority.rpartition("@")[2]
        shown = f"{MASK}@{host}"
    elif (port := _port(authority)) is not None and not port.isdigit() and "@" in rest:
        # "user:pass/word@host": a raw slash, question mark or hash in the password ended the authority too early.
        return f"{MASK}@{_mask_after_scheme(rest.rpartition('@')[2])}"
    elif port is not None and port.strip(_PUNCTUATION) and not port.strip(_PUNCTUATION).isdigit():
        # No port either: perhaps "user:password" of a text that was cut before its "@".
        host = authority.removesuffix(f":{port}")
        shown = f"{host}:{MASK}"
    else:
        host = shown = authority
    pieces = _PARAMETER_SEPARATOR.split(tail)
    return shown + _mask_path(pieces[0], host) + _mask_parameters(pieces[1:])


def _port(authority: str) -> str | None:
    """What follows the first colon, the brackets of an IPv6 address aside."""
    _, colon, port = authority[authority.find("]") + 1 if authority.startswith("[") else 0 :].partition(":")
    return port if colon else None


def _mask_path(path: str, host: str) -> str:
    if "hook" in host.lower():
        return f"/{MASK}" if path.strip("/") else path
    segments = path.split("/")
    for at, segment in enumerate(segments):
        if "hook" in segment.lower() and any(segments[at + 1 :]):
            return "/".join([*segments[: at + 1], MASK])
        if _BOT_SEGMENT.match(segment) or _SECRET_SEGMENT.fullmatch(segment):
            segments[at] = MASK
    return "/".join(segments)


def _mask_parameters(pieces: list[str]) -> str:
    """`pieces` are separator, parameter, separator, parameter ... of the query and the fragment."""
    shown: list[str] = []
    hiding = False
    for separator, parameter in zip(pieces[::2], pieces[1::2], strict=True):
        # Only these end a value for sure; "?" and ";" may be part of a secret one.
        if hiding and separator not in "&#":
            continue
        name, equals, _value = parameter.partition("=")
        hiding = bool(equals) and _is_sensitive(name)
        shown += (separator, f"{name}={MASK}" if hiding else parameter)
    return "".join(shown)


def _is_sensitive(name: str) -> bool:
    plain = unquote(name).lower().replace("_", "").replace("-", "")
    return plain in _SENSITIVE_NAMES or plain.endswith("key") or any(part in plain for part in _SENSITIVE_PARTS)


def escape(text: str) -> str:
    """`text` on one line, with everything that could act on a terminal spelled out as in Python source.

    That is control characters (newlines, ANSI escapes), format characters (bidi overrides, zero-width ones), lone
    surrogates and unusual spaces.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def clip(text: str, max_chars: int) -> str:
    """`text`, or its beginning and end around a note of how much was left out; the note comes on top of `max_chars`."""
    excess = len(text) - max_chars
    if excess <= 0:
        return text
    head = max_chars - max_chars // 3
    return f"{text[:head]} ...({excess} characters left out)... {text[head + excess :]}"
