"""What every HTTP client here must know: the proxy for a URL, and how long a server asks to be left alone."""

from __future__ import annotations

import math
import time
import urllib.request
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from evalops.endpoint import is_loopback


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
    moment = _moment(value)
    # Against the server's own clock where it tells the time: ours may be wrong.
    return None if moment is None else max(0.0, moment - (_moment(headers.get("date", "")) or now()))


def _seconds(value: str) -> float | None:
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _moment(value: str) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
