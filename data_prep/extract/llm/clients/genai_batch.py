"""Batches of the Gemini API through `google-genai`: half the price, an answer within a day. See `runners.batch`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from google.genai import types

from data_prep.extract.llm.clients import client
from data_prep.extract.llm.clients.client import ClientError, Ended, Endpoint, Reply, Request
from data_prep.extract.llm.clients.genai import GenaiClient, read_reply, translated_errors

_MOST_BYTES = 256 << 20  # An answer holds a thousand replies.


class GenaiBatches:
    """See `client.Batches`."""

    waits = True

    def __init__(self, endpoint: Endpoint, key: str) -> None:
        self._endpoint = endpoint
        self._inner = GenaiClient(endpoint, key, _MOST_BYTES)

    async def create(self, label: str, requests: Sequence[Request]) -> str:
        """Submits one batch under a display name; returns the server's name for it. Raises `ClientError`."""
        inlined = [types.InlinedRequest(contents=[types.Content(role="user", parts=[types.Part(text=request.report)])],
                                        config=self._inner.config(request)) for request in requests]
        async with _patience(self._endpoint.timeout):
            batch = await self._inner.batches.create(
                model=self._endpoint.model, src=types.BatchJobSource(inlined_requests=inlined),
                config=types.CreateBatchJobConfig(display_name=label))
        if not batch.name:
            raise ClientError(client.BAD_REPLY)
        return batch.name

    async def find(self, label: str) -> str | None:
        """The server's name for the batch with that display name, or None. Raises `ClientError`."""
        async with _patience(self._endpoint.timeout):
            async for batch in await self._inner.batches.list(config=types.ListBatchJobsConfig(page_size=100)):
                if batch.display_name == label:
                    return batch.name
        return None

    async def look(self, name: str) -> Ended | None:
        """What became of a batch; None while it is under way. Raises `ClientError`."""
        async with _patience(self._endpoint.timeout):
            batch = await self._inner.batches.get(name=name)
        if not batch.done:
            return None
        # The service does not hand back what a request was labelled with: the order is what is promised.
        answers = (batch.dest and batch.dest.inlined_responses) or ()
        return Ended(batch.state.name.removeprefix("JOB_STATE_").lower(), tuple(map(_read, answers)))

    async def forget(self, name: str) -> None:
        """Deletes the batch with its requests and replies."""
        with contextlib.suppress(ClientError):
            async with _patience(self._endpoint.timeout):
                await self._inner.batches.delete(name=name)

    async def close(self) -> None:
        """Closes the connections."""
        await self._inner.close()


@contextlib.asynccontextmanager
async def _patience(seconds: float) -> AsyncIterator[None]:
    """A limit on everything inside, with the package's errors as ours."""
    try:
        async with asyncio.timeout(seconds):
            with translated_errors():
                yield
    except TimeoutError:
        raise ClientError(client.TIMEOUT) from None


def open_batches(endpoint: Endpoint, key: str) -> GenaiBatches:
    """The batches of an endpoint."""
    return GenaiBatches(endpoint, key)


def _read(answer: types.InlinedResponse) -> Reply | ClientError:
    if answer.response is None:
        code = int((answer.error and answer.error.code) or 0)
        return client.status_error(code, None) if code >= 400 else ClientError(client.SERVER)
    try:
        return read_reply(answer.response)
    except ClientError as error:
        return error
