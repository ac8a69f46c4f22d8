"""The interface of a language model's client, its errors, and the choice of one. Keys come from the environment only.

Errors carry a kind and a status, never a server's words: those may repeat the report or the key.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

from lgdea_jax.errors import UserError, choose, require

# Transient kinds are tried again; the others concern the request or the whole run.
RATE, SERVER, TIMEOUT = "rate limit", "server error", "timeout"
CONNECTION, UNREACHABLE = "connection lost", "no connection"
AUTH, NOT_FOUND, REFUSED, BLOCKED = "key refused", "not found", "request refused", "blocked by the server's filter"
BAD_REPLY = "unreadable response"
TRANSIENT = frozenset((RATE, SERVER, TIMEOUT, CONNECTION, UNREACHABLE, BAD_REPLY))
# The request was sent but its answer is lost: the server may charge it all the same.
MAYBE_CHARGED = frozenset((TIMEOUT, CONNECTION, BAD_REPLY))


class ClientError(Exception):
    """A request that brought no reply.

    Attributes:
      kind: one of the constants above; status: HTTP status, 0 where there is none.
      retry_after: seconds that the server asks to wait, or None.
    """

    def __init__(self, kind: str, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(f"{kind} ({status})" if status else kind)
        self.kind, self.status, self.retry_after = kind, status, retry_after


@dataclasses.dataclass(frozen=True)
class Request:
    """What is sent: the fixed prompt first, the report last.

    Attributes:
      prompt: system prompt; report: the user's turn; schema: JSON schema of the reply; schema_name: for protocols
        that want one; max_tokens: of the reply.
    """

    prompt: str
    report: str
    schema: Mapping[str, Any]
    schema_name: str
    max_tokens: int


@dataclasses.dataclass(frozen=True)
class Reply:
    """What came back. Token counts are 0 where the server gives none."""

    text: str
    tokens_in: int
    tokens_out: int


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Where and how to ask.

    Attributes:
      backend: a key of BACKENDS; model: as the endpoint calls it.
      base_url: "" for the vendor's own.
      timeout: seconds for one request; concurrency: requests at a time.
      structured: "json_schema", "json_object" or "none": how the server is asked for the form of the reply.
      temperature: 0 for answers that repeat.
      local: on this host or in a private network: proxies are ignored, redirects never followed.
    """

    backend: str
    model: str
    base_url: str = ""
    timeout: float = 120.0
    concurrency: int = 8
    structured: str = "json_schema"
    temperature: float = 0.0
    local: bool = False


class Client(Protocol):
    """Asks one model."""

    async def ask(self, request: Request) -> Reply:
        """The model's reply. Raises `ClientError`."""

    async def close(self) -> None:
        """Frees connections and threads."""


@dataclasses.dataclass(frozen=True)
class Backend:
    """How a backend is loaded: our module, the SDK and the extra it comes with, and where its key stands."""

    module: str
    sdk: str
    extra: str
    key_variables: tuple[str, ...]


BACKENDS: Mapping[str, Backend] = MappingProxyType({
    "gemini": Backend("data_prep.extract.llm.clients.gemini", "google.generativeai", "gemini",
                      ("GEMINI_API_KEY", "GOOGLE_API_KEY")),
    "genai": Backend("data_prep.extract.llm.clients.genai", "google.genai", "genai",
                     ("GEMINI_API_KEY", "GOOGLE_API_KEY")),
    "openai": Backend("data_prep.extract.llm.clients.openai", "openai", "openai", ("OPENAI_API_KEY",)),
})
STRUCTURED = ("json_schema", "json_object", "none")


def read_key(endpoint: Endpoint) -> str:
    """The key of the backend from the environment. Local servers that want none get a placeholder.

    Raises:
      UserError: none is set, and the endpoint is not local.
    """
    names = BACKENDS[endpoint.backend].key_variables
    for name in names:
        key = os.environ.get(name, "").strip()
        if key:
            return key
    if endpoint.local:
        return "none"
    raise UserError(f"no key for {endpoint.backend}: set {' or '.join(names)} in the environment")


def open_client(endpoint: Endpoint) -> Client:
    """A client for the endpoint; call it inside a running event loop.

    Raises:
      UserError: unknown backend, its package is not installed, or no key is set.
    """
    backend = BACKENDS[choose("extractor", endpoint.backend, BACKENDS)]
    choose("llm.structured", endpoint.structured, STRUCTURED)
    with warnings.catch_warnings():
        # google-generativeai warns on every import that its support has ended.
        warnings.simplefilter("ignore", FutureWarning)
        require(backend.sdk, backend.extra, f"the extractor {endpoint.backend!r}")
        module = importlib.import_module(backend.module)
    return module.open_client(endpoint, read_key(endpoint))


def status_error(status: int, retry_after: float | None) -> ClientError:
    """The error that an HTTP status stands for."""
    if status == 429:
        return ClientError(RATE, status, retry_after)
    if status in (401, 403):
        return ClientError(AUTH, status)
    if status == 404:
        return ClientError(NOT_FOUND, status)
    if status in (408, 409, 425) or status >= 500:
        return ClientError(SERVER, status, retry_after)
    return ClientError(REFUSED, status)
