"""Where the service of a provider is, which key may go there, and the client that is opened once one is needed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from evalops import endpoint, web
from evalops.errors import Diagnostic, EvalopsError, Mark
from evalops.providers.client import Client
from evalops.settings import Credential, Remote, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """Who runs a service: its name in `providers` and in messages, its own origins, and what its users have set.

    `key` and `base_url` are variables; `hosts` begins with the one that is asked by default. `key_header` is as in
    `Client`.
    """

    name: str
    title: str
    hosts: tuple[str, ...]
    key: str
    base_url: str
    key_header: str | None = None


class Access:
    """The way to a service as a project has set it up. Nothing is asked, and no key is read, before `client`."""

    def __init__(self, vendor: Vendor, settings: Settings, client: Callable[..., Client]) -> None:
        """`client` makes the HTTP client."""
        self._vendor, self._settings, self._make = vendor, settings, client
        self.remote = settings.remotes.get(vendor.name, Remote())
        self._url = self.remote.base_url or os.environ.get(vendor.base_url, "").strip() or vendor.hosts[0]
        self._opened: Client | None = None

    @property
    def origin(self) -> str | None:
        """What a key for the service is bound to, None where its URL is none."""
        try:
            return endpoint.origin(self._url)
        except ValueError:
            return None

    @property
    def is_here(self) -> bool:
        """Whether the service runs on this machine: `evalops serve`, for one."""
        return endpoint.is_here(self._url)

    def client(self) -> Client:
        """The client, the same one each time. Raises EvalopsError where no key is set that may go there."""
        if self._opened is None:
            mark = self._settings.mark("providers", self._vendor.name, "base_url")
            binding = self._binding(mark)
            self._opened = self._make(
                self._url,
                web.key_of(binding),
                service=self._vendor.title,
                key_name=binding.env,
                key_header=self._vendor.key_header,
                mark=mark,
            )
        return self._opened

    def time(self) -> datetime:
        """The service's time, as far as its answers have told; asks nobody."""
        return self._opened.time() if self._opened else datetime.now(UTC)

    def close(self) -> None:
        """Ends the connections; the next `client` is another one."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _binding(self, mark: Mark) -> Credential:
        """The credential of the service: by default the vendor's own, for itself or this machine only."""
        vendor, name, here = self._vendor, self.remote.credential, self.origin
        if name is None:
            is_chosen = self.remote.base_url is None  # by the environment that holds the key as well
            if is_chosen or here in vendor.hosts or self.is_here:
                return Credential(name=vendor.name, env=vendor.key, origins=(here or "",))
            message = f"{vendor.key} may be sent to {vendor.title} only, and `base_url` is {here}"
            hint = f"name a credential that is bound to it: `providers: {{{vendor.name}: {{credential: NAME}}}}`"
            raise EvalopsError(Diagnostic(code="provider/credential", message=message, mark=mark, hint=hint))
        found = self._settings.credentials.get(name)
        if found is None or here not in found.origins:
            known = f"is not bound to {here}" if found else "is not in evalops.yaml"
            message = f"the credential `{name}` {known}"
            raise EvalopsError(Diagnostic(code="provider/credential", message=message, mark=mark))
        return found
