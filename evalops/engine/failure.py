"""Why a call failed, and what that means for the calls after it."""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from collections.abc import Iterable, Mapping
from enum import StrEnum
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import aiohttp

from evalops.engine import reply
from evalops.engine.limiter import Signal
from evalops.secret import Secret, redact
from evalops.web import retry_after

LONGEST_MESSAGE = 300

# 409 and 425 as the vendors' own clients see them: the same request can succeed a moment later.
_TRANSIENT = frozenset({408, 409, 425, 429})
_OVERLOAD = frozenset({429, 503, 504, 529})
_HOPELESS = frozenset({401, 402, 404, 405, 407, 410})
_REJECTED = frozenset({400, 413, 422})
_SPENT = frozenset({"insufficient_quota", "billing_hard_limit_reached"})


class Kind(StrEnum):
    """What went wrong with a call."""

    CONNECT = "connect"  # nothing answered at all
    TIMEOUT = "timeout"
    STATUS = "status"
    REPLY = "reply"  # an answer that is broken or is no answer
    RATE_LIMITED = "rate-limited"
    REJECTED = "rejected"  # this very request is not taken (400, 413, 422)


class CallFailed(Exception):
    """No reply came. `message` is one line without secrets; `fatal`: all other rows would fail likewise."""

    def __init__(self, kind: Kind, message: str, *, status: int | None = None, fatal: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = status
        self.fatal = fatal


class Failure(NamedTuple):
    """How one attempt failed. `pause` is what the endpoint asks for, in seconds."""

    kind: Kind
    message: str
    status: int | None = None
    fatal: bool = False
    retry: bool = False
    signal: Signal = Signal.NOTHING
    pause: float | None = None

    def exception(self) -> CallFailed:
        """A fresh exception: one that several rows raised would collect their tracebacks."""
        return CallFailed(self.kind, self.message, status=self.status, fatal=self.fatal)


def of_status(
    status: int, headers: Mapping[str, str], body: bytes, *, url: str, has_key: bool, has_worked: bool
) -> Failure:
    """The failure that an answer with another status than 2xx is. The message is not yet cleaned.

    `has_worked`: the endpoint has given replies before, so a 403 is about this row, not about the key.
    """
    code = reply.error_code(body)
    text = reply.error_text(body)
    detail = f": {text}" if text else ""
    if 300 <= status < 400:
        target = _target(url, headers.get("Location", ""))
        message = f"redirects to {target} ({status}); redirects are not followed: rows and key could go astray"
        return Failure(Kind.STATUS, message, status, fatal=True)
    if status == 401:
        message = "refuses the key (401)" if has_key else "wants a key and has been given none (401)"
        return Failure(Kind.STATUS, message + detail, status, fatal=True)
    message = f"answered {status}{_phrase(status)}{detail}"
    if status in _REJECTED and code not in _SPENT:
        return Failure(Kind.REJECTED, message, status)
    if code in _SPENT or status in _HOPELESS or (status == 403 and not has_worked):
        return Failure(Kind.RATE_LIMITED if status == 429 else Kind.STATUS, message, status, fatal=True)
    return Failure(
        Kind.RATE_LIMITED if status == 429 else Kind.STATUS,
        message,
        status,
        retry=status >= 500 or status in _TRANSIENT,
        signal=Signal.OVERLOADED if status in _OVERLOAD else Signal.NOTHING,
        pause=retry_after(headers),
    )


def of_error(error: Exception, *, seconds: float, has_worked: bool) -> Failure:
    """The failure that an exception of the HTTP client is; `seconds` is how long the attempt could take.

    Nothing of the exception's own text is used: it can hold the request.
    """
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            reason = _certificate_problem(error) or "no secure connection could be made"
            return Failure(Kind.CONNECT, f"failed the TLS check: {reason}", fatal=not has_worked, retry=True)
        case UnicodeError() | aiohttp.InvalidURL():
            return Failure(Kind.CONNECT, "could not be reached: no valid address, or no valid proxy", fatal=True)
        case aiohttp.ConnectionTimeoutError():
            return Failure(Kind.CONNECT, "could not be reached: connecting took too long", retry=True)
        case aiohttp.ClientProxyConnectionError():
            return Failure(Kind.CONNECT, "could not be reached: the proxy does not answer", retry=True)
        case aiohttp.ClientConnectorError():
            return Failure(Kind.CONNECT, f"could not be reached: {_os_problem(error.os_error)}", retry=True)
        case TimeoutError():
            message = f"gave no answer within {seconds:.3g} s"
            return Failure(Kind.TIMEOUT, message, retry=True, signal=Signal.OVERLOADED)
        case aiohttp.ClientPayloadError():
            return Failure(Kind.REPLY, "broke off in the middle of its answer", retry=True)
        case aiohttp.ClientHttpProxyError():
            return Failure(Kind.CONNECT, f"could not be reached: the proxy answered {error.status}", retry=True)
        case aiohttp.ClientResponseError():
            return Failure(Kind.REPLY, "does not speak HTTP", fatal=not has_worked, retry=True)
    # Before the first reply this is a port without a server behind it, later one request that went wrong.
    kind = Kind.REPLY if has_worked else Kind.CONNECT
    return Failure(kind, "closed the connection without an answer", retry=True)


def of_reply(reason: str, *, fatal: bool = False, retry: bool = False) -> Failure:
    """The failure that a 2xx answer without a usable reply is."""
    return Failure(Kind.REPLY, f"gave no usable reply: {reason}", fatal=fatal, retry=retry)


def clean(message: str, secrets: Iterable[Secret]) -> str:
    """One line, without secrets, cut to a length that a table can hold."""
    # Lines are joined first and cut last, so that no secret is split before it is looked for.
    line = redact(re.sub(r"[\x00-\x20\x7f-\xa0\u2028\u2029]+", " ", message).strip(), secrets)
    return line if len(line) <= LONGEST_MESSAGE else line[: LONGEST_MESSAGE - 1] + "…"


def _phrase(status: int) -> str:
    try:
        return f" ({HTTPStatus(status).phrase})"
    except ValueError:
        return ""


def _target(url: str, location: str) -> str:
    """Where a redirect leads, without user name, query and fragment."""
    try:
        parts = urlsplit(urljoin(url, location))
        return f"`{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}`"
    except ValueError:
        return "an address that cannot be read"


def _certificate_problem(
    error: aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError,
) -> str | None:
    cause = error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else error.os_error
    return cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else None


def _os_problem(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "its host name is not known"
    known = error.errno in errno.errorcode if error.errno is not None else False
    return os.strerror(error.errno).lower() if known and error.errno is not None else "no connection"
