"""Client of the Gemini API through `google-generativeai`, over REST.

The package is at its end of support upstream (`genai` is its successor). It has no asynchronous calls over REST: each
request under way holds a thread. It has no seed: the passes of `llm.votes` differ by the temperature alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import google.generativeai as gemini
import requests
import urllib3
from google.ai.generativelanguage import GenerativeServiceClient
from google.api_core import exceptions as google_errors
from google.generativeai.client import get_default_generative_client
from google.generativeai.types import RequestOptions

from data_prep.extract.llm.clients import client
from data_prep.extract.llm.clients.client import ClientError, Endpoint, Reply, Request
from data_prep.extract.llm.clients.gemini_schema import FILTERED, VENDOR, gemini_schema, retry_delay
from data_prep.extract.llm.clients.transport import Unpacker


class _Adapter(requests.adapters.HTTPAdapter):
    """Connects to the addresses of the route of a local endpoint, and bounds what it takes in."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._addresses = endpoint.route.addresses if endpoint.local else ()
        super().__init__(pool_maxsize=endpoint.concurrency, max_retries=0)

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None
                                             ) -> tuple[dict[str, Any], dict[str, Any]]:
        """See requests: the host is the checked address, TLS still wants the name."""
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
        if self._addresses:
            if host["scheme"] == "https":
                pool |= {"server_hostname": host["host"], "assert_hostname": host["host"]}
            host["host"] = request.address
        return host, pool

    def send(self, request: Any, **options: Any) -> requests.Response:
        """See requests."""
        options["stream"] = True
        if not self._addresses:
            return self._bounded(request, super().send(request, **options))
        request.headers["Host"] = urlsplit(request.url).netloc
        for address in self._addresses:
            request.address = address
            try:
                return self._bounded(request, super().send(request, **options))
            except requests.exceptions.ConnectionError as error:
                if address == self._addresses[-1] or not _unsent(error):
                    raise
        raise AssertionError("a local endpoint has an address")

    def _bounded(self, request: Any, response: requests.Response) -> requests.Response:
        unpacker = Unpacker(response.headers.get("content-encoding", ""))
        body = io.BytesIO()
        # A connection for each request, as in `transport.client_options`: it does not go back to the pool.
        connection, response.raw._connection = response.raw.connection, None
        try:
            for data in response.raw.stream(1 << 16, decode_content=False):
                for piece in unpacker.feed(data):
                    body.write(piece)
        except urllib3.exceptions.TimeoutError:
            raise ClientError(client.TIMEOUT) from None
        except urllib3.exceptions.HTTPError:
            raise ClientError(client.CONNECTION) from None
        finally:
            response.raw.close()
            connection.close()
        body.seek(0)
        headers = {name: value for name, value in response.headers.items()
                   if name.lower() not in ("content-encoding", "content-length", "transfer-encoding")}
        return self.build_response(request, urllib3.HTTPResponse(
            body, headers, response.status_code, reason=response.reason, preload_content=False))


def _unsent(error: requests.exceptions.RequestException) -> bool:
    """Whether there was no connection at all. By name: urllib3 has had several."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return type(reason).__name__ in ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError")


class GeminiClient:
    """See `client.Client`."""

    def __init__(self, endpoint: Endpoint, key: str) -> None:
        self._endpoint, self.at_once = endpoint, endpoint.concurrency
        gemini.configure(api_key=key, transport="rest",
                         client_options={"api_endpoint": endpoint.base_url or VENDOR})
        self._service: GenerativeServiceClient | None = None
        self._models: dict[tuple[str, int], gemini.GenerativeModel] = {}

    def _model(self, request: Request) -> gemini.GenerativeModel:
        kind = (request.prompt, request.max_tokens)
        if kind not in self._models:
            config: dict[str, Any] = {"candidate_count": 1, "max_output_tokens": request.max_tokens}
            if self._endpoint.temperature is not None:
                config["temperature"] = self._endpoint.temperature
            if self._endpoint.structured != "none":
                config["response_mime_type"] = "application/json"
            if self._endpoint.structured == "json_schema":
                config["response_schema"] = gemini_schema(request.schema, ordered=False)
            model = gemini.GenerativeModel(self._endpoint.model, system_instruction=request.prompt,
                                           generation_config=config)
            self._session(model)
            self._models[kind] = model
        return self._models[kind]

    def _session(self, model: gemini.GenerativeModel) -> None:
        """Makes the HTTP session fit for many threads, and keeps reports where they may be."""
        # The package offers no option for any of this; tests hold its inside to what is used here.
        self._service = model._client = get_default_generative_client()
        session = self._service.transport._session
        session.trust_env = not self._endpoint.local  # No proxy for local endpoints.
        # Redirects are not followed: a server on the local network must not hand reports on to one outside of it.
        session.max_redirects = 0
        adapter = _Adapter(self._endpoint)
        session.mount("https://", adapter)
        session.mount("http://", adapter)

    async def ask(self, request: Request) -> Reply:
        """Sends one generateContent request."""
        model = self._model(request)
        try:
            async with asyncio.timeout(self._endpoint.timeout + 1):  # A server that drips lets no read time out.
                return await _in_thread(functools.partial(self._send, model, request.report))
        except TimeoutError:
            raise ClientError(client.TIMEOUT) from None

    def _send(self, model: gemini.GenerativeModel, report: str) -> Reply:
        try:
            answer = model.generate_content(report, request_options=RequestOptions(
                retry=None, timeout=self._endpoint.timeout))
            return _reply(answer)
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
            raise ClientError(client.NOT_SERVED, 307) from None
        except requests.exceptions.RequestException as error:
            raise ClientError(client.UNREACHABLE if _unsent(error) else client.CONNECTION) from None
        except ClientError:  # Of our own transport.
            raise
        except Exception:  # Whatever the packages make of a body that is not the protocol's.
            # Without its text, which would show the reply.
            raise ClientError(client.BAD_REPLY) from None

    async def close(self) -> None:
        """Closes the connections; threads that wait for a server that hangs are left alone."""
        if self._service is not None:
            self._service.transport.close()


async def _in_thread(call: Callable[[], Reply]) -> Reply:
    """What the call gives, from a thread of its own that the process does not wait for at its end: a server that sends
    a byte now and then would keep it for ever."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Reply] = loop.create_future()

    def finish(reply: Reply | None, error: BaseException | None) -> None:
        if done.done():  # Nobody waits any more.
            return
        if error is None:
            done.set_result(reply)
        else:
            done.set_exception(error)

    def work() -> None:
        reply = error = None
        try:
            reply = call()
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # The loop is closed.
            loop.call_soon_threadsafe(finish, reply, error)

    threading.Thread(target=work, name="gemini", daemon=True).start()
    return await done


def _reply(answer: Any) -> Reply:
    usage = answer.usage_metadata
    counts = (client.count(usage.prompt_token_count), client.count(usage.candidates_token_count)) if usage else (0, 0)
    if not answer.candidates:
        blocked = answer.prompt_feedback and answer.prompt_feedback.block_reason
        raise ClientError(client.BLOCKED if blocked else client.BAD_REPLY)
    candidate = answer.candidates[0]
    text = "".join(part.text for part in candidate.content.parts)
    if not text and candidate.finish_reason.name in FILTERED:
        raise ClientError(client.BLOCKED)
    return Reply(text, *counts, cut=candidate.finish_reason.name == "MAX_TOKENS")


def open_client(endpoint: Endpoint, key: str) -> GeminiClient:
    """A client for the endpoint."""
    return GeminiClient(endpoint, key)
