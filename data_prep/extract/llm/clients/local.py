"""Client of a language model in this process: a GGUF file, read by llama.cpp (package `xllamacpp`). No server to start.

    python -m data_prep.build --config=configs/data/table.py --config.table.path=studies.csv --out=DATA \\
        --config.extractor=local --config.llm.model=FILE.gguf

llama.cpp keeps an endpoint of its own beside the calls that are used here. It is bound to a socket file in a folder
that only this user may enter, behind a key that nobody has: nothing listens on a network, nothing is downloaded.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import secrets
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import xllamacpp

from data_prep.extract.llm.clients import client
from data_prep.extract.llm.clients.client import ClientError, Endpoint, Reply, Request
from data_prep.extract.llm.repair import repeats
from data_prep.extract.llm.replies import bounded
from lgdea_jax.errors import UserError

MOST_SLOTS = 4  # Requests at a time on a GPU: each takes the memory of its own context.
NO_REPORT = "~"  # Stands in for the report where only the prompt is to be read.
_LOOK, _TAIL = 32, 900  # Pieces of a reply after which, and on how many of which, it is looked at for repetition.


class LocalClient:
    """See `client.Client`. There is no timeout: the schema bounds a reply (`replies.bounded`), and one that goes round
    in circles is ended. No penalty for repeated words is set: quotes repeat those of the report. The prompt is read
    once for all reports.

    Raises:
      UserError: the file is missing, is not a model, or does not fit into memory.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        on_gpu = endpoint.gpu_layers != 0 and _has_gpu()
        # On the CPU four at a time take twice as long for every token, and each reads the prompt anew.
        slots = self.at_once = min(endpoint.concurrency, MOST_SLOTS) if on_gpu else 1
        self._folder = tempfile.TemporaryDirectory(prefix="lgdea-")
        options = xllamacpp.CommonParams()
        options.model.path = str(_model_file(endpoint.model))
        options.n_ctx, options.n_parallel = slots * endpoint.context, slots
        options.n_gpu_layers = endpoint.gpu_layers
        for cores in (options.cpuparams, options.cpuparams_batch):
            cores.n_threads = endpoint.threads or _threads()
        options.cache_ram_mib = 0  # Of old prompts: ours is always the same.
        options.verbosity = -1  # Its log would show reports.
        options.offline = True
        options.hostnames, options.api_keys = [f"{self._folder.name}/llama.sock"], [secrets.token_hex()]
        options.ui = options.endpoint_slots = options.endpoint_props = False
        try:
            self._server = xllamacpp.Server(options)
        except (RuntimeError, MemoryError):
            self._folder.cleanup()
            raise UserError(f"llama.cpp cannot load {endpoint.model}: the file is damaged, of a newer kind, or too "
                            "large for the memory (see llm.context, llm.concurrency)") from None
        self._prompt: str | None = None  # What the memory of the only slot begins with.
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="llama")
        self._closed = threading.Event()

    async def ask(self, request: Request) -> Reply:
        """One chat completion."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._send, request)

    def _settle(self, prompt: str) -> None:
        """Leaves the prompt in memory as it was first computed, and nothing after it.

        llama.cpp computes only what the last question did not begin with, and how many tokens it takes at a time shows
        in the last bits: a reply would depend on the questions before it, and a run that was killed on where.
        """
        self._server.handle_chat_completions({"messages": _messages(prompt, NO_REPORT), "max_tokens": 1,
                                              "cache_prompt": prompt == self._prompt})
        self._prompt = prompt

    def _send(self, request: Request) -> Reply:
        options: dict[str, Any] = {
            "messages": _messages(request.prompt, request.report), "max_tokens": request.max_tokens,
            "stream": True, "stream_options": {"include_usage": True}}
        if self._endpoint.temperature is not None:
            options["temperature"] = self._endpoint.temperature
        if request.seed is not None:
            options["seed"] = request.seed
        if self._endpoint.structured == "json_schema":
            options["response_format"] = {"type": "json_schema", "json_schema": {
                "name": "reply", "schema": bounded(request.schema, request.report), "strict": True}}
        elif self._endpoint.structured == "json_object":
            options["response_format"] = {"type": "json_object"}
        parts: list[dict[str, Any]] = []
        lost = False  # It repeats itself: what would follow is more of the same.

        def take(part: dict[str, Any]) -> bool:
            """Keeps a part of the reply; True ends it."""
            nonlocal lost
            parts.append(part)
            if len(parts) % _LOOK == 0:
                lost = repeats(_text(parts[-_TAIL:]))
            return lost or self._closed.is_set()

        try:
            if self.at_once == 1:
                self._settle(request.prompt)
            answer = self._server.handle_chat_completions(options, take)
        except (ValueError, RuntimeError):
            raise ClientError(client.REFUSED) from None
        return _reply([answer, *parts] if isinstance(answer, dict) else parts, lost)

    async def close(self) -> None:
        """Ends what is under way and frees the model."""
        self._closed.set()
        await asyncio.to_thread(functools.partial(self._threads.shutdown, wait=True, cancel_futures=True))
        self._server = None
        gc.collect()
        self._folder.cleanup()


def _messages(prompt: str, report: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": prompt}, {"role": "user", "content": report}]


def _text(parts: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content") or "" for part in parts for choice in part.get("choices", ()))


def _reply(parts: list[dict[str, Any]], lost: bool) -> Reply:
    ended, usage = None, {}
    for part in parts:
        error = part.get("error")
        if error:
            raise ClientError(client.TOO_LONG if error.get("type") == "exceed_context_size_error" else client.REFUSED,
                              client.count(error.get("code")))
        usage = part.get("usage") or usage
        for choice in part.get("choices", ()):
            ended = choice["finish_reason"] or ended
    if ended is None and not lost:
        raise ClientError(client.CONNECTION)  # It was ended from outside.
    return Reply(_text(parts), client.count(usage.get("prompt_tokens")), client.count(usage.get("completion_tokens")),
                 cut=ended == "length")


def _has_gpu() -> bool:
    """Whether this build of llama.cpp finds one."""
    kinds = xllamacpp.ggml_backend_dev_type
    gpus = (kinds.GGML_BACKEND_DEVICE_TYPE_GPU, kinds.GGML_BACKEND_DEVICE_TYPE_IGPU)
    return any(device["type"] in gpus for device in xllamacpp.get_device_info())


def _threads() -> int:
    """Of a process that may use some of the cores only, their number: llama.cpp's threads wait for one another. -1
    leaves it to llama.cpp."""
    if not hasattr(os, "sched_getaffinity"):
        return -1
    cores = len(os.sched_getaffinity(0))
    return cores if cores < (os.cpu_count() or cores) else -1


def _model_file(name: str) -> Path:
    path = Path(name)
    try:
        with open(path, "rb") as file:
            known = file.read(4) == b"GGUF"
    except OSError as error:
        raise UserError(f"llm.model={name}: {error.strerror}; the extractor local reads a file, like FILE.gguf"
                        ) from None
    if not known:
        raise UserError(f"llm.model={name} is not a GGUF file, which the extractor local reads")
    return path


def open_client(endpoint: Endpoint, key: str) -> LocalClient:
    """A client for the endpoint; it needs no key."""
    return LocalClient(endpoint)
