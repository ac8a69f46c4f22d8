"""Client of the Gemini API through `google-generativeai`, over REST.

The package is at its end of support upstream (`genai` is its successor). It has no asynchronous calls over REST: each
request under way holds a thread.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import google.generativeai as gemini
import requests
from google.ai.generativelanguage import GenerativeServiceClient
from google.api_core import exceptions as google_errors
from google.generativeai.client import get_default_generative_client
from google.generativeai.types import RequestOptions

from data_prep.extract.llm.clients import client
from data_prep.extract.llm.clients.client import ClientError, Endpoint, Reply, Request
from data_prep.extract.llm.clients.gemini_schema import gemini_schema, retry_delay


class GeminiClient:
    """See `client.Client`."""

    def __init__(self, endpoint: Endpoint, key: str) -> None:
        self._endpoint = endpoint
        self._threads = ThreadPoolExecutor(endpoint.concurrency, "gemini")
        gemini.configure(api_key=key, transport="rest",
                         client_options={"api_endpoint": endpoint.base_url} if endpoint.base_url else None)
        self._service: GenerativeServiceClient | None = None
        self._models: dict[str, gemini.GenerativeModel] = {}

    def _model(self, request: Request) -> gemini.GenerativeModel:
        if request.schema_name not in self._models:
            config: dict[str, Any] = {"temperature": self._endpoint.temperature, "candidate_count": 1,
                                      "max_output_tokens": request.max_tokens}
            if self._endpoint.structured != "none":
                config["response_mime_type"] = "application/json"
            if self._endpoint.structured == "json_schema":
                config["response_schema"] = gemini_schema(request.schema, ordered=False)
            model = gemini.GenerativeModel(self._endpoint.model, system_instruction=request.prompt,
                                           generation_config=config)
            self._session(model)
            self._models[request.schema_name] = model
        return self._models[request.schema_name]

    def _session(self, model: gemini.GenerativeModel) -> None:
        """Makes the HTTP session fit for many threads, and keeps reports where they may be."""
        # The package offers no option for any of this; tests hold its inside to what is used here.
        self._service = model._client = get_default_generative_client()
        session = self._service.transport._session
        session.trust_env = not self._endpoint.local  # No proxy for local endpoints.
        # Redirects are not followed: a server on the local network must not hand reports on to one outside of it.
        session.max_redirects = 0
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=self._endpoint.concurrency, max_retries=0)
        session.mount("https://", adapter)
        session.mount("http://", adapter)

    async def ask(self, request: Request) -> Reply:
        """Sends one generateContent request."""
        model = self._model(request)
        try:
            async with asyncio.timeout(self._endpoint.timeout + 1):  # A server that drips lets no read time out.
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._threads, self._send, model, request.report)
        except TimeoutError:
            raise ClientError(client.TIMEOUT) from None

    def _send(self, model: gemini.GenerativeModel, report: str) -> Reply:
        try:
            answer = model.generate_content(report, request_options=RequestOptions(
                retry=None, timeout=self._endpoint.timeout))
        except google_errors.GoogleAPICallError as error:
            response = error.response
            headers = getattr(response, "headers", None) or {}
            body = getattr(response, "text", "")
            if "API_KEY_INVALID" in body:
                raise ClientError(client.AUTH, 400) from None
            raise client.status_error(int(error.code or 0), retry_delay(headers.get("retry-after"), body)) from None
        except requests.exceptions.Timeout:
            raise ClientError(client.TIMEOUT) from None
        except requests.exceptions.TooManyRedirects:
            raise ClientError(client.REFUSED, 307) from None
        except requests.exceptions.RequestException as error:
            reason = getattr(error.args[0] if error.args else None, "reason", None)
            unsent = type(reason).__name__ in ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError")
            raise ClientError(client.UNREACHABLE if unsent else client.CONNECTION) from None
        except (ValueError, gemini.types.BlockedPromptException):  # Not the protocol's; its text would show the reply.
            raise ClientError(client.BAD_REPLY) from None
        return _reply(answer)

    async def close(self) -> None:
        """Closes the connections; threads that wait for a server that hangs are left to their timeout."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._service is not None:
            self._service.transport.close()


def _reply(answer: Any) -> Reply:
    usage = answer.usage_metadata
    counts = (int(usage.prompt_token_count), int(usage.candidates_token_count)) if usage else (0, 0)
    if not answer.candidates:
        blocked = answer.prompt_feedback and answer.prompt_feedback.block_reason
        raise ClientError(client.BLOCKED if blocked else client.BAD_REPLY)
    candidate = answer.candidates[0]
    text = "".join(part.text for part in candidate.content.parts)
    if not text and candidate.finish_reason.name in ("SAFETY", "RECITATION", "PROHIBITED_CONTENT", "BLOCKLIST"):
        raise ClientError(client.BLOCKED)
    return Reply(text, *counts)


def open_client(endpoint: Endpoint, key: str) -> GeminiClient:
    """A client for the endpoint."""
    return GeminiClient(endpoint, key)
