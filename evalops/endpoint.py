"""Where a model is served and which key may go there: resolved offline, from the spec and evalops.yaml only."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from evalops import schema
from evalops.errors import Diagnostic, EvalopsError, Mark
from evalops.settings import Credential, Settings
from evalops.spec import Evaluation, Model

EMBEDDED = "embedded/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An OpenAI-compatible endpoint. An empty `base_url` is the embedded runtime of this package.

    `source` is for a service that calls its models itself: which of its kinds of models it is.
    """

    base_url: str
    model: str
    credential: Credential | None = None
    source: str | None = None

    @property
    def is_embedded(self) -> bool:
        return not self.base_url


@dataclass(frozen=True, slots=True)
class _Vendor:
    base_url: str
    credential: Credential | None


def _vendor(name: str, base_url: str, env: str | None) -> _Vendor:
    return _Vendor(base_url, (env and Credential(name=name, env=env, origins=(origin(base_url),))) or None)


def origin(url: str) -> str:
    """`https://host` or `https://host:port` of a URL: what a credential is bound to. Raises ValueError for none."""
    parts = urlsplit(url)
    default = {"https": 443, "http": 80}.get(parts.scheme)
    port = f":{parts.port}" if parts.port not in (None, default) else ""
    host = parts.hostname or ""
    return f"{parts.scheme}://[{host}]{port}" if ":" in host else f"{parts.scheme}://{host}{port}"


# The vendors' own OpenAI-compatible endpoints, each with the key its users already have.
VENDORS = {
    "openai/": _vendor("openai", "https://api.openai.com/v1", "OPENAI_API_KEY"),
    "anthropic/": _vendor("anthropic", "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
    "google/": _vendor("google", "https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    "together/": _vendor("together", "https://api.together.ai/v1", "TOGETHER_API_KEY"),
    "ollama/": _vendor("ollama", "http://127.0.0.1:11434/v1", None),
}


def resolve(model: Model, settings: Settings, mark: Mark) -> Endpoint:
    """The endpoint of `model`.

    Raises EvalopsError where the id is unknown, the URL is not allowed, or the credential is not bound to it.
    """
    served = settings.models.get(model.model)
    if model.external_base_url is not None:
        return _bound(model.external_base_url, model.model, model.credential, settings, mark)
    if served is not None and "base_url" in served:
        name = model.credential or served.get("credential")
        return _bound(served["base_url"], served.get("model", model.model), name, settings, mark)
    if served is not None and str(served.get("model", "")).startswith(EMBEDDED):
        return Endpoint(base_url="", model=served["model"])
    if model.model.startswith(EMBEDDED):
        _check_file(model.model, mark)
        return Endpoint(base_url="", model=model.model)
    prefix = next((each for each in VENDORS if model.model.startswith(each)), None)
    if prefix and model.model_source in (None, "external"):
        vendor = VENDORS[prefix]
        if model.credential:
            return _bound(vendor.base_url, model.model.removeprefix(prefix), model.credential, settings, mark)
        return Endpoint(base_url=vendor.base_url, model=model.model.removeprefix(prefix), credential=vendor.credential)
    raise _problem("model", f"nothing says where `{model.model}` is served", mark, _served_hint(model, settings))


def _served_hint(model: Model, settings: Settings) -> str:
    add = f"add it to {settings.mark('models').path} under `models: {{{model.model}: {{base_url: …}}}}`"
    if any(model.model.startswith(prefix) for prefix in VENDORS):
        return f"{add}, or remove `model_source: {model.model_source}` to send it to the vendor"
    served = [each for each, value in settings.models.items() if "base_url" in value]
    prefixes = ", ".join(f"`{each}`" for each in (EMBEDDED, *VENDORS))
    other = f"{add}, give `external_base_url`, or begin the id with one of {prefixes}"
    return schema.nearest(model.model, served) or other


def _check_file(model: str, mark: Mark) -> None:
    """A spec may come from a stranger: it names weights inside the project only, evalops.yaml any file."""
    path = model.removeprefix(f"{EMBEDDED}file:")
    if path != model and (path.startswith(("/", "~")) or ".." in path.split("/")):
        raise _problem(
            "model",
            f"`{model}` is outside the project",
            mark,
            f"name it in evalops.yaml, `models: {{my-model: {{model: {model}}}}}`, and use `my-model` here",
        )


def check(evaluation: Evaluation, settings: Settings) -> list[Diagnostic]:
    """What is wrong with the endpoints of an evaluation."""
    problems: list[Diagnostic] = []
    for model in evaluation.models:
        try:
            resolve(model, settings, evaluation.places.mark(*model.route, "model"))
        except EvalopsError as error:
            problems += (replace(each, mark=_named_at(evaluation, model, each)) for each in error.diagnostics)
    return problems


def _named_at(evaluation: Evaluation, model: Model, problem: Diagnostic) -> Mark:
    """The field that the problem is about, where the spec has it; the model's id else."""
    keys = {
        "spec/url": "external_base_url" if model.external_base_url else "model",
        "spec/credential": "credential" if model.credential else "model",
    }
    return evaluation.places.mark(*model.route, keys.get(problem.code, "model"))


def _bound(url: str, model: str, name: str | None, settings: Settings, mark: Mark) -> Endpoint:
    """The endpoint at `url`, with the named credential if its origins allow that."""
    reason = refusal(url)
    if reason:
        shown = f"`{url}`" if "@" not in url else "this URL"  # it may hold a password
        raise _problem("url", f"{shown} is not allowed: {reason}", mark)
    if name is None:
        return Endpoint(base_url=url.rstrip("/"), model=model)
    credential = settings.credentials.get(name)
    file = settings.mark("credentials").path  # of another revision, where that is the one to be trusted
    if credential is None:
        raise _problem(
            "credential",
            f"no credential is called `{name}` in {file}",
            mark,
            schema.nearest(name, settings.credentials)
            or f"add it: `credentials: {{{name}: {{env: …, origins: […]}}}}`",
        )
    if origin(url) not in {_origin_or_none(each) for each in credential.origins}:
        raise _problem(
            "credential",
            f"the credential `{name}` may not be sent to {origin(url)}",
            mark,
            f"{file} binds it to {', '.join(credential.origins)}",
        )
    return Endpoint(base_url=url.rstrip("/"), model=model, credential=credential)


def _origin_or_none(url: str) -> str | None:
    try:
        return origin(url)
    except ValueError:
        return None


def refusal(url: str) -> str | None:
    """Why rows and keys may not be sent to `url`, or None: https to a public name, http to this machine only."""
    if not url.isascii() or re.search(r"[\s\\\x00-\x1f]", url):
        return "it has characters that look-alike hosts are made of"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "it is no URL"
    if parts.scheme not in ("http", "https") or not host:
        return "it must begin with https:// and name a host"
    if "@" in parts.netloc:
        return "it holds a user name or password"
    if "?" in url or "#" in url:
        return "it has a query or a fragment"
    if port == 0:
        return "it is no URL"
    if is_loopback(host):
        return None
    if parts.scheme == "http":
        return "http is for this machine only"
    if "[" in parts.netloc or _is_address(host):
        return "it names an address rather than a host"
    if not _HOST.fullmatch(host) or any(part.startswith("xn--") for part in host.split(".")):
        return "its host is written in a way that look-alike hosts use"
    return None


_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # Python's versions do not agree on `::ffff:127.0.0.1`.
    return address.is_loopback and getattr(address, "ipv4_mapped", None) is None


def is_here(url: str) -> bool:
    """Whether a URL is of this machine: of `evalops serve`, for one."""
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False


def _is_address(host: str) -> bool:
    # Besides dotted quads, resolvers take `127.1`, `0x7f.1` and `2130706433` for addresses.
    return ":" in host or re.fullmatch(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+))*", host, re.I) is not None


def _problem(what: str, message: str, mark: Mark, hint: str | None = None) -> EvalopsError:
    return EvalopsError(Diagnostic(code=f"spec/{what}", message=message, mark=mark, hint=hint))
