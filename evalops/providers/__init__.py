"""The services that can run an evaluation, by name; each is imported when it is first used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from evalops.errors import Diagnostic, EvalopsError

if TYPE_CHECKING:
    from evalops.project import Project
    from evalops.providers.base import Provider

PROVIDERS = {
    "local": "evalops.providers.local",
    "together": "evalops.providers.together",
    "patronus": "evalops.providers.patronus",
}


def open_provider(name: str, project: Project) -> Provider:
    """The provider `name` for a project. Raises EvalopsError for an unknown name."""
    if name not in PROVIDERS:
        raise EvalopsError(
            Diagnostic(
                code="provider/unknown",
                message=f"there is no provider `{name}`",
                hint=f"providers: {', '.join(PROVIDERS)}",
            )
        )
    provider: Provider = import_module(PROVIDERS[name]).open_provider(project)
    return provider


class Providers(Mapping[str, "Provider"]):
    """Every provider, by name. Each is opened when it is first asked for, which asks nobody and reads no secret."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._opened: dict[str, Provider] = {}

    def __getitem__(self, name: str) -> Provider:
        if name not in PROVIDERS:
            raise KeyError(name)
        if name not in self._opened:
            self._opened[name] = open_provider(name, self._project)
        return self._opened[name]

    def __iter__(self) -> Iterator[str]:
        return iter(PROVIDERS)

    def __len__(self) -> int:
        return len(PROVIDERS)

    def opened(self) -> list[Provider]:
        """Those that were asked for."""
        return list(self._opened.values())

    def close(self) -> None:
        """Ends what they have open."""
        for provider in self._opened.values():
            provider.close()
