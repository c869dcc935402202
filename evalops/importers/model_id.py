"""A model by the name that another tool has for it, and by ours."""

from __future__ import annotations

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


def of_promptfoo(name: str) -> str | None:
    """Our name for `openai:chat:gpt-4o`; a vendor that evalops does not know keeps its name, None is no model."""
    vendor, _, rest = name.partition(":")
    if vendor in _NO_MODELS or "://" in name or not rest or name.startswith((".", "/")):
        return None
    kind, _, model = rest.partition(":")
    if vendor not in _VENDORS:
        return None if kind in _OTHER_KINDS else name
    kinds, prefix = _VENDORS[vendor]
    if kind in kinds:
        return prefix + model if model else None
    return None if kind in _OTHER_KINDS else prefix + rest


def bare(name: str) -> str:
    """What the endpoint behind `openai:chat:my-model` knows the model by."""
    vendor, _, rest = name.partition(":")
    kind, _, model = rest.partition(":")
    return model if model and kind in ("chat", "responses", "messages", "completion") else rest or vendor


def of_openai(name: str) -> str:
    """Our name for a model as OpenAI calls it."""
    return f"openai/{name}"
