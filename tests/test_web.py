"""Proxies and pauses, for any HTTP client here."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from evalops import web


@pytest.mark.parametrize(
    ("url", "proxies", "found"),
    [
        ("https://api.example", {}, None),
        ("https://api.example", {"https": "http://p:1"}, "http://p:1"),
        ("https://api.example", {"http": "http://p:1"}, None),
        ("https://api.example", {"all": "p:1"}, "http://p:1"),
        ("https://api.example", {"https": "http://p:1", "no": "api.example"}, None),
        ("https://api.example:8443", {"https": "http://p:1", "no": "api.example:8443"}, None),
        ("http://127.0.0.1:8000", {"http": "http://p:1", "all": "http://p:1"}, None),
        ("http://localhost", {"http": "http://p:1"}, None),
        ("http://[::1]:80", {"http": "http://p:1"}, None),
    ],
)
def test_the_proxy_for_a_url(url: str, proxies: dict[str, str], found: str | None) -> None:
    assert web.proxy_for(url, proxies) == found


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "30", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "9" * 5000}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": formatdate(1_000_030, usegmt=True)}, 30.0),
        ({"retry-after": formatdate(1_000_030, usegmt=True), "date": formatdate(1_000_020, usegmt=True)}, 10.0),
        ({"retry-after": formatdate(1, usegmt=True)}, 0.0),
    ],
)
def test_how_long_a_server_asks_to_be_left_alone(headers: dict[str, str], seconds: float | None) -> None:
    assert web.retry_after(headers, lambda: 1_000_000.0) == seconds
