"""What all clients share below their packages: where they connect to, and how much of an answer they take in.

A local endpoint is connected to by the addresses that were checked (`data_use.Route`), never by a new look-up of its
name; TLS still checks the certificate against the name. An answer is unpacked piece by piece and given up once it is
longer than a reply can be: a few megabytes may unpack to gigabytes.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from data_prep.extract.llm.clients import client
from data_prep.extract.llm.clients.client import ClientError, Endpoint

MOST_BYTES = 4 << 20  # Of one answer, unpacked; a reply of 32,000 tokens has some 0.2 MB.
_PIECE = 1 << 16


class Unpacker:
    """The body of an answer, unpacked within bounds."""

    def __init__(self, coding: str, most: int = MOST_BYTES) -> None:
        """`coding` is the Content-Encoding. Raises `ClientError` for one that was not asked for."""
        coding = coding.strip().lower()
        if coding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise ClientError(client.BAD_REPLY)
        self._zlib = None if coding in ("", "identity") else zlib.decompressobj(32 + zlib.MAX_WBITS)
        self._left = most

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The pieces that `data` unpacks to. Raises `ClientError` when there is too much of it, or it is damaged."""
        while data:
            piece, data = (data, b"") if self._zlib is None else self._inflate(data)
            self._left -= len(piece)
            if self._left < 0:
                raise ClientError(client.BAD_REPLY)
            yield piece

    def _inflate(self, data: bytes) -> tuple[bytes, bytes]:
        try:
            return self._zlib.decompress(data, _PIECE), self._zlib.unconsumed_tail
        except zlib.error:
            raise ClientError(client.BAD_REPLY) from None


def client_options(http: Any, endpoint: Endpoint, most: int = MOST_BYTES) -> dict[str, Any]:
    """Options of an AsyncClient for the endpoint.

    Args:
      http: the module that the package uses: httpx2, or httpx.
      endpoint: where to; most: bytes of an answer.
    """
    # A connection for each request: on a kept one, what a server or gateway sends after an answer is read as the answer
    # to the next question, which may be about another report.
    limits = http.Limits(max_connections=endpoint.concurrency + 2, max_keepalive_connections=0)

    class Bounded(http.AsyncByteStream):
        def __init__(self, stream: Any, coding: str) -> None:
            self._stream, self._unpacker = stream, Unpacker(coding, most)

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for data in self._stream:
                for piece in self._unpacker.feed(data):
                    yield piece

        async def aclose(self) -> None:
            await self._stream.aclose()

    async def bound(response: Any) -> None:
        response.encoding = "utf-8"  # As JSON is. What a server states may be no text at all for Python ("base64").
        response.stream = Bounded(response.stream, response.headers.pop("content-encoding", ""))

    # No redirects: a local server must not pass reports on to a remote one. No proxy for local ones.
    options = {"follow_redirects": False, "trust_env": not endpoint.local, "timeout": endpoint.timeout,
               "headers": {"accept-encoding": "gzip"}, "event_hooks": {"response": [bound]}, "limits": limits}
    if endpoint.local:
        options["transport"] = _pinned(http, endpoint.route.addresses, limits)
    return options


def _pinned(http: Any, addresses: Sequence[str], limits: Any) -> Any:
    class Pinned(http.AsyncHTTPTransport):
        async def handle_async_request(self, request: Any) -> Any:
            named = request.url
            # The header Host has the name already, and TLS is told it here.
            request.extensions = {**request.extensions, "sni_hostname": named.host}
            try:
                for address in addresses:
                    request.url = at(named, address)
                    try:
                        return await super().handle_async_request(request)
                    except http.ConnectError:
                        if address == addresses[-1]:
                            raise
            finally:
                request.url = named
            raise AssertionError("a local endpoint has an address")

    @functools.lru_cache(64)  # A client has few URLs.
    def at(url: Any, address: str) -> Any:
        return url.copy_with(host=address)

    return Pinned(limits=limits)
