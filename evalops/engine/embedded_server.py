"""The child process of the embedded model: serves one GGUF file on loopback until its stdin closes.

Protocol: one JSON line on stdin (`{"model": PATH, "key": KEY, "port": N}`, 0 for any port), one JSON line on stdout
(`{"port": N}` once requests are answered, or `{"error": WHAT, "detail": TEXT}`), then nothing more.
The parent keeps stdin open; when it ends, however it ends, the kernel closes the pipe and this process goes.
The key comes through stdin because arguments and environments of a process can be read by others.
Run by path or by `python -m`; imports nothing of the package, so that it starts at once.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from typing import Any
from urllib.parse import urlsplit

# One slot and one thread a process: further slots lose the cache of the shared prompt prefix, and a second
# thread spins while it waits for a busy core. One process a core is how the whole machine is used.
SETTINGS: dict[str, Any] = {
    "n_ctx": 4096,
    "n_parallel": 1,
    "n_threads_http": 2,
    "n_gpu_layers": 0,
    "cache_ram_mib": 0,  # the slot's own prefix cache is enough; this one grows to gigabytes
    "fit_params": False,
    "swa_full": True,
    "warmup": False,
    "offline": True,
    "ui": False,
    "endpoint_slots": False,  # it would show the prompts
    "verbosity": 0,
}


def serve(model: str, key: str, port: int) -> tuple[Any, int]:
    """Load the model and listen; the server (which the caller must keep) and its port.

    Raises ImportError where xllamacpp or a system library of it is missing, RuntimeError for a bad file.
    """
    import xllamacpp

    params = xllamacpp.CommonParams()
    for name, value in SETTINGS.items():
        setattr(params, name, value)
    params.model.path = model
    params.model_alias = {"embedded"}
    params.api_keys = [key]
    params.port = port
    params.hostnames = ["127.0.0.1"]
    for cpu in (params.cpuparams, params.cpuparams_batch):
        cpu.n_threads = 1
    server = xllamacpp.Server(params)
    heard = urlsplit(server.listening_address).port
    if not heard:
        raise RuntimeError("the server does not say where it listens")
    return server, heard


def answer(line: bytes) -> tuple[Any, dict[str, Any]]:
    """What the parent is told about its request line, and the server that must stay referenced."""
    try:
        request = json.loads(line)
        server, port = serve(request["model"], request["key"], request["port"])
    except ImportError as error:
        known = "not-installed" if error.name == "xllamacpp" else "library"
        return None, {"error": known, "detail": str(error)}
    except Exception as error:  # whatever the runtime raises is the parent's to explain
        return None, {"error": "load", "detail": str(error)}
    return server, {"port": port}


def exit_at_eof() -> None:
    """Wait for the end of stdin, then leave at once: a running generation must not hold us back."""
    while os.read(0, 4096):
        pass
    os._exit(0)


def main() -> None:
    """Serve as the module describes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    # The runtime writes to stdout as it likes; the answer line keeps a descriptor of its own.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        line = bytearray()
        while not line.endswith(b"\n"):
            byte = os.read(0, 1)
            if not byte:
                return
            line += byte
        threading.Thread(target=exit_at_eof, daemon=True).start()
        server, reply = answer(bytes(line))
        out.write(json.dumps(reply) + "\n")
    if server is None:
        os._exit(1)
    threading.Event().wait()


if __name__ == "__main__":
    main()
