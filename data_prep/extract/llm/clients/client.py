"""The interface of a language model's client, its errors, and the choice of one. Keys come from the environment only.

Errors carry a kind and a status, never a server's words: those may repeat the report or the key.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol
from urllib.parse import urlsplit

from data_prep.extract.llm.data_use import Route, find_route
from lgdea_jax.errors import UserError, choose, require

# Transient kinds are tried again; the others concern the request or the whole run. NOT_SERVED, a redirection or an
# unpaid bill for instance, is never about the report.
RATE, SERVER, TIMEOUT = "rate limit", "server error", "timeout"
CONNECTION, UNREACHABLE = "connection lost", "no connection"
AUTH, NOT_FOUND, REFUSED, BLOCKED = "key refused", "not found", "request refused", "blocked by the server's filter"
BAD_REPLY, NOT_SERVED, TOO_LONG = "unreadable response", "not served", "report too long for the model"
EXPIRED = "the batch has expired"
TRANSIENT = frozenset((RATE, SERVER, TIMEOUT, CONNECTION, UNREACHABLE, BAD_REPLY, EXPIRED))
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
        that want one; max_tokens: of the reply; seed: of the sampling, None is not sent.
    """

    prompt: str
    report: str
    schema: Mapping[str, Any]
    schema_name: str
    max_tokens: int
    seed: int | None = None


@dataclasses.dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
      text: of the reply; tokens_in, tokens_out: as the server counted them, 0 where it does not.
      cut: whether it ended because it was as long as was allowed.
      form: how it was asked for, where that is not what the settings say, as text for the record.
    """

    text: str
    tokens_in: int
    tokens_out: int
    cut: bool = False
    form: str = ""


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Where and how to ask.

    Attributes:
      backend: a key of BACKENDS; model: as the endpoint calls it.
      base_url: "" for the vendor's own.
      timeout: seconds for one request; concurrency: requests at a time.
      structured: "json_schema", "json_object" or "none": how the server is asked for the form of the reply.
      temperature: 0 for answers that repeat; None is not sent.
      threads, gpu_layers, context: of a model in this process, see `settings.Settings`.
      route: where the host was found when the terms were checked. At a local one proxies are ignored.
    """

    backend: str
    model: str
    base_url: str = ""
    timeout: float = 120.0
    concurrency: int = 8
    structured: str = "json_schema"
    temperature: float | None = 0.0
    threads: int = 0
    gpu_layers: int = -1
    context: int = 8192
    route: Route = dataclasses.field(default=None)  # type: ignore[assignment]  # Looked up where it is not given.

    def __post_init__(self) -> None:
        if self.route is None:
            object.__setattr__(self, "route", find_route(self.base_url))

    @property
    def local(self) -> bool:
        """On this host or in a private network."""
        return self.route.local

    @property
    def takes_key(self) -> bool:
        """Whether a key may be sent: over TLS, or without leaving this host."""
        return not self.base_url or urlsplit(self.base_url).scheme == "https" or self.route.this_host


class Client(Protocol):
    """Asks one model.

    Attributes:
      at_once: requests that it works on at a time; more would wait inside it, and be lost with the process.
    """

    at_once: int

    async def ask(self, request: Request) -> Reply:
        """The model's reply. Raises `ClientError`."""

    async def close(self) -> None:
        """Frees connections and threads."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """A batch that is over: a reply or an error for each request, in their order; `state` in the service's words.

    No replies at all where nobody can tell what became of it.
    """

    state: str
    replies: tuple[Reply | ClientError, ...]


class Batches(Protocol):
    """Submits batches to one model and asks how they are. Every call raises `ClientError`.

    Attributes:
      waits: whether to wait for a batch; otherwise the run ends with `instruction(names)` where one is not over.
    """

    waits: bool

    async def create(self, label: str, requests: Sequence[Request]) -> str:
        """Submits one batch under a label of ours; returns the service's name for it."""

    async def find(self, label: str) -> str | None:
        """The service's name for the batch with that label, or None."""

    async def look(self, name: str) -> Ended | None:
        """What became of a batch; None while it is under way."""

    async def forget(self, name: str) -> None:
        """Removes what the service keeps of a batch whose replies are stored; what cannot be removed stays."""

    async def close(self) -> None:
        """Frees connections."""


@dataclasses.dataclass(frozen=True)
class Backend:
    """How a backend is loaded: our module, the SDK and the extra it comes with, where its key stands, and our module
    for its batches, "" without."""

    module: str
    sdk: str
    extra: str
    key_variables: tuple[str, ...]
    batches: str = ""


BACKENDS: Mapping[str, Backend] = MappingProxyType({
    "gemini": Backend("data_prep.extract.llm.clients.gemini", "google.generativeai", "gemini",
                      ("GEMINI_API_KEY", "GOOGLE_API_KEY")),
    "genai": Backend("data_prep.extract.llm.clients.genai", "google.genai", "genai",
                     ("GEMINI_API_KEY", "GOOGLE_API_KEY"), "data_prep.extract.llm.clients.genai_batch"),
    "local": Backend("data_prep.extract.llm.clients.local", "xllamacpp", "local", ()),
    "openai": Backend("data_prep.extract.llm.clients.openai", "openai", "openai", ("OPENAI_API_KEY",),
                      "data_prep.extract.llm.clients.openai_batch"),
})
EXCHANGE = "data_prep.extract.llm.clients.exchange"
STRUCTURED = ("json_schema", "json_object", "none")


NO_KEY = "none"  # Sent in place of a key: most servers without keys want to be given something.


def read_key(endpoint: Endpoint) -> str:
    """The key of the backend from the environment; NO_KEY where none may be sent, or a local server needs none.

    Raises:
      UserError: none is set, and the endpoint is not local.
    """
    if not endpoint.takes_key:
        return NO_KEY
    names = BACKENDS[endpoint.backend].key_variables
    for name in names:
        key = os.environ.get(name, "").strip()
        if key:
            return key
    if endpoint.local:
        return NO_KEY
    raise UserError(f"no key for {endpoint.backend}: set {' or '.join(names)} in the environment")


def key_refused(endpoint: Endpoint, status: int) -> UserError:
    """The error of a run whose key is refused."""
    names = " or ".join(BACKENDS[endpoint.backend].key_variables)
    where = endpoint.base_url or "the endpoint"
    if not endpoint.takes_key:
        return UserError(f"{where} wants a key ({status}), and none is sent over plain http to another machine: use "
                         "https")
    return UserError(f"{where} refused the key ({status}): check {names}")


def count(value: Any) -> int:
    """A server's count of tokens; 0 where it is none."""
    return value if isinstance(value, int) and 0 <= value <= 10**9 else 0


def open_client(endpoint: Endpoint) -> Client:
    """A client for the endpoint; call it inside a running event loop.

    Raises:
      UserError: unknown backend, its package is not installed, or no key is set.
    """
    backend = BACKENDS[choose("extractor", endpoint.backend, BACKENDS)]
    return _load(backend, backend.module, endpoint).open_client(endpoint, read_key(endpoint))


def open_batches(endpoint: Endpoint, exchange: str = "") -> Batches:
    """The batches of an endpoint, or files in the folder `exchange`. See `open_client`, also for what is raised."""
    backend = BACKENDS[endpoint.backend]
    if exchange:
        return _load(backend, EXCHANGE, endpoint).open_exchange(endpoint, exchange)
    return _load(backend, backend.batches, endpoint).open_batches(endpoint, read_key(endpoint))


def _load(backend: Backend, module: str, endpoint: Endpoint) -> Any:
    choose("llm.structured", endpoint.structured, STRUCTURED)
    with warnings.catch_warnings():
        # google-generativeai warns on every import that its support has ended.
        warnings.simplefilter("ignore", FutureWarning)
        require(backend.sdk, backend.extra, f"the extractor {endpoint.backend!r}")
        return importlib.import_module(module)


def status_error(status: int, retry_after: float | None) -> ClientError:
    """The error that an HTTP status stands for."""
    if status == 429:
        return ClientError(RATE, status, retry_after)
    if status in (401, 403):
        return ClientError(AUTH, status)
    if status == 404:
        return ClientError(NOT_FOUND, status)
    if status < 400 or status in (402, 405, 407):
        return ClientError(NOT_SERVED, status)
    if status in (408, 409, 425) or status >= 500:
        return ClientError(SERVER, status, retry_after)
    return ClientError(REFUSED, status)
