"""The providers of a promptfoo config, those that are asked and those that grade, as models of ours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from evalops import endpoint
from evalops.errors import Mark
from evalops.importers.draft import differs, no_equal, number, slug
from evalops.importers.files import Files
from evalops.importers.source import Source

_RECORDED = "record its responses in a column of the dataset, and name that: `model_to_evaluate: COLUMN`"
_TOKENS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens", "num_predict")
_URLS = ("apiBaseUrl", "apiHost")
_SECRET = re.compile(r"(?i)key$|token$|secret|password|authorization|^headers$|credential|^auth$")
_NO_MATTER = {"apiKeyEnvar", "organization", "cost", "showThinking", "delay", "basePath"}

# What promptfoo calls a vendor, the kinds of models of it that answer a prompt, and our name for the vendor.
_VENDORS = {
    "openai": (("chat", "responses"), "openai/"),
    "anthropic": (("messages",), "anthropic/"),
    "google": ((), "google/"),
    "ollama": (("chat", "completion"), "ollama/"),
    "togetherai": (("chat",), "together/"),
}
# Kinds of models that do not answer a prompt with a text.
_OTHER_KINDS = {
    "agents", "assistant", "chatkit", "claude-agent-sdk", "claude-code", "codex-app-server", "codex-sdk", "completion",
    "embedding", "embeddings", "image", "live", "moderation", "realtime", "speech", "transcription", "tts", "video",
}  # fmt: skip
# What promptfoo runs or calls that is no model.
_NO_MODELS = {
    "agentic", "browser", "echo", "exec", "file", "golang", "http", "https", "javascript", "manual-input", "mcp",
    "package", "promptfoo", "python", "ruby", "sequence", "webhook", "websocket", "ws", "wss",
}  # fmt: skip


class Candidate(NamedTuple):
    """A provider that answers. `model` is None for `echo`, which gives the prompt back.

    `name` is for a spec's name, `prompts` are the labels of those it is asked, None for all.
    """

    name: str
    model: Mapping[str, Any] | None
    prompts: tuple[str, ...] | None
    mark: Mark


def candidates(config: Source, files: Files) -> list[Candidate]:
    """All providers that are models or echo."""
    key = "targets" if "targets" in config.value and "providers" not in config.value else "providers"
    if key not in config.value:
        files.say(no_equal("the config names no provider, so nothing would be asked", config.mark()))
        return []
    return list(_candidates(config.at(key), files))


def _candidates(given: Source, files: Files) -> Iterator[Candidate]:
    value = given.value
    if isinstance(value, list):
        for number in range(len(value)):
            yield from _candidates(given.at(number), files)
    elif isinstance(value, str) and value.startswith("file://") and given.path == files.path:
        for path in files.paths(value, given.mark(), _RECORDED):
            for each in files.values(path, given.mark()):
                yield from _candidates(each, files)
    elif isinstance(value, str):
        yield from _candidate(value, {}, given, files)
    elif isinstance(value, dict):
        yield from _options(given, files)
    else:
        files.say(no_equal("this provider is neither a name nor a mapping", given.mark()))


def _options(given: Source, files: Files) -> Iterator[Candidate]:
    """A provider with its settings: below `id`, or of old below its name."""
    value = given.value
    name, settings = value.get("id"), value
    if name is None and len(value) == 1:
        name, settings = next(iter(value.items()))
        settings = settings if isinstance(settings, dict) else {}
        name = settings.get("id", name)
    if isinstance(name, str) and name.startswith("file://"):
        message = f"the provider `{shown(name)}` is a file, and an import runs none"
        files.say(no_equal(message, given.mark(), _RECORDED))
    elif isinstance(name, str):
        yield from _candidate(name, settings, given, files)
    else:
        files.say(no_equal("this provider has no `id`", given.mark()))


def _candidate(name: str, settings: Mapping[str, Any], given: Source, files: Files) -> Iterator[Candidate]:
    mark = given.mark()
    if settings.get("transform") or settings.get("responseParser"):
        message = f"the provider `{shown(name)}` changes its responses with code, and an import runs none"
        files.say(no_equal(message, mark, _RECORDED))
        return
    label = settings.get("label")
    wanted = settings.get("prompts")
    asked = tuple(each for each in wanted if isinstance(each, str)) if isinstance(wanted, list) else None
    own = slug(label if isinstance(label, str) else name.rpartition(":")[2], "model")
    if name == "echo":
        yield Candidate("echo", None, asked, mark)
    elif (found := model(name, settings, mark, files)) is not None:
        yield Candidate(own, found, asked, mark)


def model(name: str, settings: Mapping[str, Any], mark: Mark, files: Files) -> dict[str, Any] | None:
    """The fields of a model of ours, None with a finding for what is none. No key is among them."""
    ours = by_our_name(name)
    if ours is None:
        message = f"the provider `{shown(name)}` is no model that answers a prompt"
        files.say(no_equal(message, mark, _RECORDED))
        return None
    config = settings.get("config")
    config = config if isinstance(config, dict) else {}
    found: dict[str, Any] = {"model": ours}
    temperature = number(config.get("temperature"))
    if temperature is not None and 0 <= temperature <= 2:
        found["temperature"] = temperature
    tokens = [config[key] for key in _TOKENS if type(config.get(key)) is int and config[key] > 0]
    if tokens:
        found["max_tokens"] = tokens[0]
    url = next((config[key] for key in _URLS if isinstance(config.get(key), str)), None)
    if url is not None:
        found = _elsewhere({**found, "model": _bare(name)}, url, config, mark, files)
    _remark(name, config, mark, files)
    return found


def by_our_name(name: str) -> str | None:
    """Our name for `openai:chat:gpt-4o`; a vendor that evalops does not know keeps its name, None is no model."""
    vendor, _, rest = name.partition(":")
    if vendor in _NO_MODELS or "://" in name or not rest or name.startswith((".", "/")):
        return None
    kind, _, own = rest.partition(":")
    if vendor not in _VENDORS:
        return None if kind in _OTHER_KINDS else name
    kinds, prefix = _VENDORS[vendor]
    if kind in kinds:
        return prefix + own if own else None
    return None if kind in _OTHER_KINDS else prefix + rest


def _bare(name: str) -> str:
    """What the endpoint behind `openai:chat:my-model` knows the model by."""
    vendor, _, rest = name.partition(":")
    kind, _, own = rest.partition(":")
    return own if own and kind in ("chat", "responses", "messages", "completion") else rest or vendor


def _elsewhere(found: dict[str, Any], url: str, config: Mapping[str, Any], mark: Mark, files: Files) -> dict[str, Any]:
    """A model behind an address of its own. What binds its key has to be said in evalops.yaml."""
    url = url if "://" in url else f"https://{url}/v1"
    if "{{" in url or endpoint.refusal(url):
        # It may hold a password, so it is not shown.
        hint = "give `external_base_url`: https, or http on this machine, up to and with `/v1`"
        files.say(no_equal("a provider is called at an address that evalops does not allow", mark, hint))
        return found
    found = {**found, "external_base_url": url}
    host = urlsplit(url).hostname or ""
    if endpoint.is_loopback(host):
        return found
    env = config.get("apiKeyEnvar")
    env = env if isinstance(env, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", env) else "API_KEY"
    name = re.sub(r"[^a-z0-9]+", "-", host).strip("-") or "external"
    bound = f"credentials: {{{name}: {{env: {env}, origins: [{endpoint.origin(url)}]}}}}"
    message = f"the key for {endpoint.origin(url)} goes by the name `{name}`, which evalops.yaml has to bind"
    files.say(differs(message, mark, f"add it there:\n  {bound}"))
    return {**found, "credential": name}


def _remark(name: str, config: Mapping[str, Any], mark: Mark, files: Files) -> None:
    """Says what of a provider's settings stays behind, by name: no value is repeated."""
    secrets = [key for key in config if _SECRET.search(key) and key != "apiKeyEnvar"]
    if secrets:
        message = f"the provider `{shown(name)}` holds {_listed(secrets)}, which is not copied"
        hint = "a key stays in the environment; evalops.yaml says in which variable, under `credentials`"
        files.say(no_equal(message, mark, hint))
    known = {"temperature", *_TOKENS, *_URLS, *_NO_MATTER, *secrets}
    others = [key for key in config if key not in known]
    if others:
        message = f"the provider `{shown(name)}` sets {_listed(others)}, which a spec cannot say"
        files.say(no_equal(message, mark))


def _listed(keys: list[str]) -> str:
    return ", ".join(f"`{shown(key)}`" for key in keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")


def shown(name: str) -> str:
    """A name as a message may repeat it: an address may hold a password."""
    name = f"{name.partition('://')[0]}://…" if "://" in name and not name.startswith("file://") else name
    return name if len(name) <= 60 else f"{name[:59]}…"
