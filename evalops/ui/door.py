"""Who is let in: a token that opens the page once, and the cookie that it is exchanged for."""

from __future__ import annotations

import hmac
import secrets
from collections import deque
from urllib.parse import urlencode

ENTER = "/enter"
MOST_SESSIONS = 20  # browsers at a time; the one that came first has to come again


class Door:
    """The sessions of one run of the server. Nothing of it is kept: after a restart everybody enters anew.

    Cookies are shared by all ports of a host, so that the name of ours has the port in it.
    """

    def __init__(self, origin: str, port: int) -> None:
        self.cookie = f"evalops-ui-{port}"
        self._origin = origin
        self._token = secrets.token_urlsafe(32)
        self._sessions: deque[str] = deque(maxlen=MOST_SESSIONS)

    @property
    def url(self) -> str:
        """The address that opens the page, once."""
        return f"{self._origin}{ENTER}?{urlencode({'token': self._token})}"

    def exchange(self, token: str) -> str | None:
        """A new session for the token, which nobody can use again; None for any other."""
        if not _same(token, self._token):
            return None
        self._token = secrets.token_urlsafe(32)
        self._sessions.append(secrets.token_urlsafe(32))
        return self._sessions[-1]

    def knows(self, session: str) -> bool:
        """Whether a cookie is of this run of the server."""
        return any(_same(session, each) for each in self._sessions)


def _same(given: str, known: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), known.encode())
