"""Client of any endpoint with the OpenAI chat protocol: vLLM, Ollama, llama.cpp, a gateway, or OpenAI itself."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import openai

from data_prep.extract.llm.clients import client
from data_prep.extract.llm.clients.client import ClientError, Endpoint, Reply, Request
from data_prep.extract.llm.limits import parse_retry_after

_LADDER = ("json_schema", "json_object", "none")


class OpenAiClient:
    """See `client.Client`."""

    def __init__(self, endpoint: Endpoint, key: str) -> None:
        self._endpoint = endpoint
        self._rung = _LADDER.index(endpoint.structured)
        self._answered = False
        # No redirects: a local server must not pass reports on to a remote one. No proxy for local ones.
        http = openai.DefaultAsyncHttpxClient(
            follow_redirects=False, trust_env=not endpoint.local, timeout=endpoint.timeout,
            limits=_limits(endpoint.concurrency))
        self._client = openai.AsyncOpenAI(
            api_key=key, base_url=endpoint.base_url or "https://api.openai.com/v1", timeout=endpoint.timeout,
            max_retries=0, organization="", project="", http_client=http)
        # Newer models of OpenAI's own refuse the older name; most other servers know only that one.
        self._limit = "max_tokens" if endpoint.base_url else "max_completion_tokens"

    async def ask(self, request: Request) -> Reply:
        """Sends one chat completion; steps down from JSON schema where the server does not know it."""
        rung = self._rung
        while True:
            try:
                async with asyncio.timeout(self._endpoint.timeout):  # A server that drips never lets a read time out.
                    return await self._send(request, _LADDER[rung])
            except TimeoutError:
                raise ClientError(client.TIMEOUT) from None
            except ClientError as error:
                # Only until the first answer: later a refusal is about the report.
                if error.status not in (400, 422) or self._answered or rung == len(_LADDER) - 1:
                    raise
            rung += 1
            self._rung = max(self._rung, rung)

    async def _send(self, request: Request, structured: str) -> Reply:
        options: dict[str, Any] = {self._limit: request.max_tokens}
        # As it stands (`extra_body`): given by name the package walks through the schema anew for every request, which
        # takes it a quarter of its time.
        if structured == "json_schema":
            options["extra_body"] = {"response_format": {"type": "json_schema", "json_schema": {
                "name": re.sub(r"\W", "_", request.schema_name), "schema": dict(request.schema), "strict": True}}}
        elif structured == "json_object":
            options["extra_body"] = {"response_format": {"type": "json_object"}}
        try:
            answer = await self._client.chat.completions.create(
                model=self._endpoint.model, temperature=self._endpoint.temperature,
                messages=[{"role": "system", "content": request.prompt}, {"role": "user", "content": request.report}],
                **options)
        except openai.APITimeoutError:
            raise ClientError(client.TIMEOUT) from None
        except openai.APIStatusError as error:
            raise client.status_error(error.status_code, parse_retry_after(error.response.headers.get("retry-after"))
                                      ) from None
        except openai.APIConnectionError as error:
            # By name: the package changed its HTTP library.
            unsent = type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout")
            raise ClientError(client.UNREACHABLE if unsent else client.CONNECTION) from None
        except openai.APIError:  # Among them a body that is not the protocol's.
            raise ClientError(client.BAD_REPLY) from None
        except ValueError:  # JSON that does not parse; its text would show the reply.
            raise ClientError(client.BAD_REPLY) from None
        return self._reply(answer)

    def _reply(self, answer: Any) -> Reply:
        try:
            text = answer.choices[0].message.content
            filtered = answer.choices[0].finish_reason == "content_filter"
            usage = answer.usage
            counts = (int(usage.prompt_tokens or 0), int(usage.completion_tokens or 0)) if usage else (0, 0)
        except (AttributeError, IndexError, TypeError, ValueError):
            raise ClientError(client.BAD_REPLY) from None
        if filtered:
            raise ClientError(client.BLOCKED)
        self._answered = True
        return Reply(text or "", *counts)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()


def _limits(concurrency: int) -> Any:
    limits = type(openai.DEFAULT_CONNECTION_LIMITS)
    return limits(max_connections=concurrency + 2, max_keepalive_connections=concurrency + 2)


def open_client(endpoint: Endpoint, key: str) -> OpenAiClient:
    """A client for the endpoint."""
    return OpenAiClient(endpoint, key)
