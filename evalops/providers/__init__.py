"""The services that can run an evaluation, by name; each is imported when it is first used."""

from __future__ import annotations

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
