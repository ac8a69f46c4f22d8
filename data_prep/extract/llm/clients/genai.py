"""Client of the Gemini API through `google-genai`, the supported package."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import httpx2  # The HTTP library of google-genai.
from google import genai
from google.genai import errors, types

from data_prep.extract.llm.clients import client
from data_prep.extract.llm.clients.client import ClientError, Endpoint, Reply, Request
from data_prep.extract.llm.clients.gemini_schema import FILTERED, VENDOR, gemini_schema, retry_delay
from data_prep.extract.llm.clients.transport import MOST_BYTES, client_options


class GenaiClient:
    """See `client.Client`."""

    def __init__(self, endpoint: Endpoint, key: str, most_bytes: int = MOST_BYTES) -> None:
        self._endpoint, self.at_once = endpoint, endpoint.concurrency
        self._http = httpx2.AsyncClient(**client_options(httpx2, endpoint, most_bytes))
        # The address is always given: the package would take one from the environment.
        self._client = genai.Client(api_key=key, vertexai=False, http_options=types.HttpOptions(
            base_url=endpoint.base_url or f"https://{VENDOR}/", timeout=int(endpoint.timeout * 1000),
            retry_options=types.HttpRetryOptions(attempts=1), httpx_async_client=self._http))
        self._configs: dict[tuple, types.GenerateContentConfig] = {}

    def config(self, request: Request) -> types.GenerateContentConfig:
        """Everything about a request but the report."""
        kind = (request.prompt, request.max_tokens, request.seed)
        if kind not in self._configs:
            structured: dict[str, Any] = {}
            if self._endpoint.structured != "none":
                structured["response_mime_type"] = "application/json"
            if self._endpoint.structured == "json_schema":
                structured["response_schema"] = types.Schema.model_validate(
                    gemini_schema(request.schema, ordered=True))
            if self._endpoint.temperature is not None:
                structured["temperature"] = self._endpoint.temperature
            self._configs[kind] = types.GenerateContentConfig(
                system_instruction=request.prompt, max_output_tokens=request.max_tokens, candidate_count=1,
                automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True), seed=request.seed,
                **structured)
        return self._configs[kind]

    async def ask(self, request: Request) -> Reply:
        """Sends one generateContent request."""
        try:
            async with asyncio.timeout(self._endpoint.timeout):  # A server that drips never lets a read time out.
                return await self._send(request)
        except TimeoutError:
            raise ClientError(client.TIMEOUT) from None

    async def _send(self, request: Request) -> Reply:
        with translated_errors():
            answer = await self._client.aio.models.generate_content(
                model=self._endpoint.model, contents=request.report, config=self.config(request))
        return read_reply(answer)

    @property
    def batches(self) -> Any:
        """The package's own interface to batches."""
        return self._client.aio.batches

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """The package's errors as `ClientError`, without their words: those may hold the report or the key."""
    try:
        yield
    except errors.APIError as error:
        headers = getattr(error.response, "headers", None) or {}
        if error.code == 400 and "API_KEY_INVALID" in str(error.details):
            raise ClientError(client.AUTH, 400) from None
        wait = retry_delay(headers.get("retry-after"), error.details)
        raise client.status_error(int(error.code or 0), wait) from None
    except (httpx2.ConnectError, httpx2.ConnectTimeout):
        raise ClientError(client.UNREACHABLE) from None
    except httpx2.TimeoutException:
        raise ClientError(client.TIMEOUT) from None
    except httpx2.TransportError:
        raise ClientError(client.CONNECTION) from None
    except ClientError:  # Of our own transport.
        raise
    except Exception:  # Whatever the package makes of a body that is not the protocol's.
        # Without its text, which would show the reply.
        raise ClientError(client.BAD_REPLY) from None


def read_reply(answer: types.GenerateContentResponse) -> Reply:
    """The text and token counts of an answer. Raises `ClientError` where it has none."""
    usage = answer.usage_metadata
    counts = (0, 0)
    if usage:  # Thinking is billed as output.
        counts = (client.count(usage.prompt_token_count),
                  client.count(usage.candidates_token_count) + client.count(usage.thoughts_token_count))
    if not answer.candidates:
        if answer.prompt_feedback and answer.prompt_feedback.block_reason:
            raise ClientError(client.BLOCKED)
        raise ClientError(client.BAD_REPLY)
    content = answer.candidates[0].content
    parts = (content.parts or ()) if content else ()
    text = "".join(part.text or "" for part in parts if not part.thought)
    ended = str(answer.candidates[0].finish_reason).rsplit(".", 1)[-1]
    if not text and ended in FILTERED:
        raise ClientError(client.BLOCKED)
    return Reply(text, *counts, cut=ended == "MAX_TOKENS")


def open_client(endpoint: Endpoint, key: str) -> GenaiClient:
    """A client for the endpoint."""
    return GenaiClient(endpoint, key)
