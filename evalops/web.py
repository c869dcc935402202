"""What every HTTP client here must know: the proxy for a URL, its key, how long a server asks to be left alone."""

from __future__ import annotations

import math
import os
import time
import urllib.request
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from evalops.endpoint import is_loopback
from evalops.errors import Diagnostic, EvalopsError
from evalops.secret import Secret
from evalops.settings import Credential

_LAST_YEAR = 3000  # of a time that can be meant, and that leaves room to count on from


def proxy_for(url: str, proxies: Mapping[str, str]) -> str | None:
    """The proxy for `url`, None for a direct connection: this machine is never reached through one.

    `proxies` are those of the environment, as `urllib.request.getproxies` finds them.
    """
    parts = urlsplit(url)
    excepted = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]  # the stubs lack it
    if is_loopback(parts.hostname or "") or excepted(parts.netloc, proxies):
        return None
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def key_of(credential: Credential) -> Secret:
    """The key that a credential is bound to, from the environment. Raises EvalopsError where that holds none."""
    value = os.environ.get(credential.env, "").strip()
    try:
        if value:
            return Secret(value)
        why = "is not set"
    except ValueError as error:
        why = f"holds no key: {error}"
    raise EvalopsError(
        Diagnostic(
            code="provider/no-key",
            message=f"the environment variable {credential.env} {why}",
            hint=f"it holds the key for {', '.join(credential.origins)}",
        )
    )


def retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Seconds to wait, by `retry-after-ms` or `retry-after` (seconds or a date; RFC 9110, 10.2.3).

    The names of `headers` are in lower case, or their case does not matter.
    """
    milliseconds = _seconds(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after", "")
    seconds = _seconds(value)
    if seconds is not None:
        return seconds
    until, said = http_time(value), http_time(headers.get("date", ""))
    # Against the server's own clock where it tells the time: ours may be wrong.
    return None if until is None else max(0.0, until.timestamp() - (said.timestamp() if said else now()))


def http_time(text: str) -> datetime | None:
    """The time that a header tells (RFC 9110, 5.6.7), None where it tells none that can be meant."""
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return _meant(found) if str(found.year) in text else None  # the parser takes 0001 for 2001


def iso_time(text: str) -> datetime | None:
    """The time in ISO 8601, in UTC, None for what tells none that can be meant: year 1 is how some write "never"."""
    try:
        return _meant(datetime.fromisoformat(text))
    except ValueError:
        return None


def _meant(time: datetime) -> datetime | None:
    known = time if time.tzinfo else time.replace(tzinfo=UTC)
    return known.astimezone(UTC) if 1970 <= known.year <= _LAST_YEAR else None


def _seconds(value: str) -> float | None:
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
