"""Client of any endpoint with the OpenAI chat protocol: vLLM, Ollama, llama.cpp, a gateway, or OpenAI itself.

Servers differ in what they take: a JSON schema, a temperature, the name of the limit on a reply. A request starts from
the settings and is changed only where a refusal is about that very parameter; the change holds for the run once it has
brought a reply, and is on record with each reply.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import sys
from collections.abc import Iterator
from typing import Any

import openai

from data_prep.extract.llm.clients import client
from data_prep.extract.llm.clients.client import ClientError, Endpoint, Reply, Request
from data_prep.extract.llm.clients.transport import MOST_BYTES, client_options
from data_prep.extract.llm.limits import parse_retry_after

_LADDER = ("json_schema", "json_object", "none")
_LIMITS = ("max_tokens", "max_completion_tokens")
# What a refusal is about, by the words of servers' messages, where they do not name the parameter.
FORMAT, TEMPERATURE, LIMIT, LENGTH, SEED = "format", "temperature", "limit", "length", "seed"
_ABOUT = (
    # First: such messages name max_tokens, too.
    (LENGTH, re.compile(r"context[ _](?:length|size|window)|(?:prompt|input|request)[^.]{0,40}too (?:long|large)"
                        r"|too many (?:input )?tokens|exceeds?[^.]{0,60}(?:context|tokens)", re.IGNORECASE)),
    (LIMIT, re.compile(r"max_completion_tokens|unsupported[^.]{0,40}max_tokens", re.IGNORECASE)),
    (FORMAT, re.compile(r"response_format|json_?schema|json_object|guided[_ ](?:json|decoding|grammar)"
                        r"|(?:parse|invalid|failed)[^.]{0,30}grammar|structured[ _]output|invalid format",
                        re.IGNORECASE)),
    (TEMPERATURE, re.compile(r"['\"`]temperature['\"`]|temperature[^.]{0,60}(?:support|deprecated|allowed)",
                             re.IGNORECASE)),
    (SEED, re.compile(r"['\"`]seed['\"`]|\bseed\b[^.]{0,60}(?:support|permitted|allowed)", re.IGNORECASE)),
)
_PARAMETERS = {"response_format": FORMAT, "temperature": TEMPERATURE, "max_tokens": LIMIT,
               "max_completion_tokens": LIMIT, "seed": SEED}


@dataclasses.dataclass(frozen=True)
class Form:
    """How a request is put: rung of the ladder, name of the limit on the reply, whether temperature and seed are sent.
    """

    structured: str
    limit: str
    temperature: bool
    seed: bool = True

    def without(self, about: str) -> Form | None:
        """The form to try after a refusal about that; None where there is no other."""
        if about == FORMAT and self.structured != _LADDER[-1]:
            return dataclasses.replace(self, structured=_LADDER[_LADDER.index(self.structured) + 1])
        if about == LIMIT:
            return dataclasses.replace(self, limit=_LIMITS[1 - _LIMITS.index(self.limit)])
        if about == TEMPERATURE and self.temperature:
            return dataclasses.replace(self, temperature=False)
        if about == SEED and self.seed:
            return dataclasses.replace(self, seed=False)
        return None

    def options(self, request: Request, temperature: float | None) -> dict[str, Any]:
        """The parameters of a request beside model and messages."""
        options: dict[str, Any] = {self.limit: request.max_tokens}
        if self.temperature:
            options["temperature"] = temperature
        if self.seed and request.seed is not None:
            options["seed"] = request.seed
        if self.structured == "json_schema":
            options["response_format"] = {"type": "json_schema", "json_schema": {
                "name": re.sub(r"\W", "_", request.schema_name), "schema": dict(request.schema), "strict": True}}
        elif self.structured == "json_object":
            options["response_format"] = {"type": "json_object"}
        return options

    def changes(self, asked: Form) -> str:
        """What is not as it was asked for, in words."""
        changes = []
        if self.structured != asked.structured:
            changes.append(f"structured {self.structured}")
        changes += [f"no {name}" for name in ("temperature", "seed") if getattr(self, name) != getattr(asked, name)]
        return ", ".join(changes)


def first_form(endpoint: Endpoint) -> Form:
    """How an endpoint is asked first."""
    # Newer models of OpenAI's own refuse the older name; most other servers know only that one.
    return Form(endpoint.structured, _LIMITS[0] if endpoint.base_url else _LIMITS[1], endpoint.temperature is not None)


def messages(request: Request) -> list[dict[str, str]]:
    """The two turns of a request."""
    return [{"role": "system", "content": request.prompt}, {"role": "user", "content": request.report}]


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """The package's errors as `ClientError`, without their words, or as `Refused` where a parameter is to blame."""
    try:
        yield
    except openai.APITimeoutError:
        raise ClientError(client.TIMEOUT) from None
    except openai.APIStatusError as error:
        if error.status_code in (400, 422):
            raise Refused(error.status_code, subject(error.body)) from None
        raise client.status_error(error.status_code, parse_retry_after(error.response.headers.get("retry-after"))
                                  ) from None
    except openai.APIConnectionError as error:
        if isinstance(error.__cause__, ClientError):  # Of our own transport.
            raise error.__cause__ from None
        # By name: the package changed its HTTP library.
        unsent = type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout")
        raise ClientError(client.UNREACHABLE if unsent else client.CONNECTION) from None
    except ClientError:
        raise
    except Exception:  # Whatever the package makes of a body that is not the protocol's.
        # Without its text, which would show the reply.
        raise ClientError(client.BAD_REPLY) from None


def open_package(endpoint: Endpoint, key: str, most_bytes: int = MOST_BYTES) -> openai.AsyncOpenAI:
    """The package's client with our transport."""
    # The package's HTTP library: httpx2, or httpx in older versions.
    http = sys.modules[type(openai.DEFAULT_CONNECTION_LIMITS).__module__.split(".")[0]]
    return openai.AsyncOpenAI(
        api_key=key, base_url=endpoint.base_url or "https://api.openai.com/v1", timeout=endpoint.timeout,
        max_retries=0, organization="", project="",
        http_client=openai.DefaultAsyncHttpxClient(**client_options(http, endpoint, most_bytes)))


class OpenAiClient:
    """See `client.Client`."""

    def __init__(self, endpoint: Endpoint, key: str) -> None:
        self._endpoint, self.at_once = endpoint, endpoint.concurrency
        self._client = open_package(endpoint, key)
        self._asked = first_form(endpoint)
        self._form, self._proven = self._asked, False  # What is tried first, and whether it has brought a reply.

    async def ask(self, request: Request) -> Reply:
        """Sends one chat completion, in another form where the server refuses a parameter."""
        form, tried = self._form, set()
        while True:
            tried.add(form)
            try:
                async with asyncio.timeout(self._endpoint.timeout):  # A server that drips never lets a read time out.
                    reply = await self._send(request, form)
            except TimeoutError:
                raise ClientError(client.TIMEOUT) from None
            except Refused as refusal:
                other = self._form if self._form not in tried else form.without(refusal.about)
                if refusal.about == LENGTH:
                    raise ClientError(client.TOO_LONG, refusal.status) from None
                if other is None or other in tried:
                    raise client.status_error(refusal.status, None) from None
                form = other
                continue
            if not self._proven:  # Later another form is for this report only.
                self._form, self._proven = form, True
            return reply

    async def _send(self, request: Request, form: Form) -> Reply:
        options = form.options(request, self._endpoint.temperature)
        # As it stands (`extra_body`): given by name the package walks through the schema anew for every request, which
        # takes it a quarter of its time.
        shape = {"response_format": options.pop("response_format")} if "response_format" in options else None
        with translated_errors():
            answer = await self._client.chat.completions.create(
                model=self._endpoint.model, messages=messages(request), extra_body=shape, **options)
        return read_reply(answer, form.changes(self._asked))

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()


def read_reply(answer: Any, form: str) -> Reply:
    """The text and token counts of a chat completion; `form` is for the record. Raises `ClientError`."""
    try:
        choice, usage = answer.choices[0], answer.usage
        text, ended = choice.message.content or "", choice.finish_reason
        counts = (client.count(usage.prompt_tokens), client.count(usage.completion_tokens)) if usage else (0, 0)
    except (AttributeError, IndexError, KeyError, TypeError):
        raise ClientError(client.BAD_REPLY) from None
    if not isinstance(text, str):
        raise ClientError(client.BAD_REPLY)
    if ended == "content_filter":
        raise ClientError(client.BLOCKED)
    return Reply(text, *counts, cut=ended == "length", form=form)


class Refused(Exception):
    """A request that the server finds wrong: `about` names the parameter, "" where it is none of them."""

    def __init__(self, status: int, about: str) -> None:
        super().__init__(status)
        self.status, self.about = status, about


def subject(body: Any) -> str:
    """What a refusal is about: FORMAT, TEMPERATURE, LIMIT, LENGTH, or "" where it does not say.

    Args:
      body: of the answer with status 400 or 422, in any of the forms of OpenAI, vLLM, llama.cpp, Ollama, LM Studio and
        FastAPI. Only its fields for messages, codes and parameters are read; nothing of it is kept.
    """
    words = list(_words(body))
    text = " ".join(words)
    if _ABOUT[0][1].search(text):
        return LENGTH
    for word in words:  # A field that is a parameter's name, or begins with one ("response_format.type").
        about = _PARAMETERS.get(re.split(r"[.\[]", word, maxsplit=1)[0])
        if about:
            return about
    return next((about for about, pattern in _ABOUT if pattern.search(text)), "")


def _words(body: Any) -> Iterator[str]:
    if isinstance(body, str):
        yield body[:2000]
    elif isinstance(body, list):
        for item in body[:20]:
            yield from _words(item)
    elif isinstance(body, dict):
        for key in ("error", "detail", "param", "code", "type", "loc", "message", "msg"):
            yield from _words(body.get(key))


def open_client(endpoint: Endpoint, key: str) -> OpenAiClient:
    """A client for the endpoint."""
    return OpenAiClient(endpoint, key)
