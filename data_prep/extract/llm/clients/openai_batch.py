"""Batches of the OpenAI API: a file of requests, an answer within a day, half the price. See `runners.batch`.

Requests cannot be put another way while a batch is under way: where its answers say that a parameter is refused, the
next batch goes without it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from data_prep.extract.llm.clients import client
from data_prep.extract.llm.clients.client import ClientError, Ended, Endpoint, Request
from data_prep.extract.llm.clients.openai import Refused, first_form, open_package, translated_errors
from data_prep.extract.llm.clients.openai_lines import PATH, in_order, question_lines, read_lines

_MOST_BYTES = 256 << 20  # An answer holds a thousand replies.
_OVER = ("completed", "expired", "cancelled", "failed")


class OpenAiBatches:
    """See `client.Batches`."""

    waits = True

    def __init__(self, endpoint: Endpoint, key: str) -> None:
        self._endpoint = endpoint
        self._client = open_package(endpoint, key, _MOST_BYTES)
        self._asked = self._form = first_form(endpoint)

    async def create(self, label: str, requests: Sequence[Request]) -> str:
        """Uploads the requests and submits them, with our label among the batch's metadata."""
        lines = "".join(question_lines(requests, self._endpoint, self._form)).encode("utf-8", "replace")
        async with self._patience():
            file = await self._client.files.create(file=(f"{label}.jsonl", lines), purpose="batch")
            batch = await self._client.batches.create(
                completion_window="24h", endpoint=PATH, input_file_id=file.id,
                metadata={"label": label, "form": self._form.changes(self._asked)})
            if not batch.id:
                raise ClientError(client.BAD_REPLY)
            return batch.id

    async def find(self, label: str) -> str | None:
        """See `client.Batches`."""
        async with self._patience():
            async for batch in self._client.batches.list(limit=100):
                if (batch.metadata or {}).get("label") == label:
                    return batch.id
        return None

    async def look(self, name: str) -> Ended | None:
        """See `client.Batches`: of one that expired or was cancelled what was answered in time counts."""
        async with self._patience():
            batch = await self._client.batches.retrieve(name)
            if batch.status not in _OVER:
                return None
            found, about = {}, set()
            form = (batch.metadata or {}).get("form", "")
            for file in filter(None, (batch.output_file_id, batch.error_file_id)):
                content = await self._client.files.content(file)
                found |= read_lines(content.content.decode("utf-8", "replace"), form, about)
            total = batch.request_counts.total if batch.request_counts else 0
        if form == self._form.changes(self._asked):
            self._form = next(filter(None, map(self._form.without, sorted(about))), self._form)
        missing = client.EXPIRED if batch.status == "expired" else client.SERVER
        return Ended(batch.status, in_order(found, total, missing) if found else ())

    async def forget(self, name: str) -> None:
        """Deletes the files of a batch: they hold reports."""
        with contextlib.suppress(ClientError):
            async with self._patience():
                batch = await self._client.batches.retrieve(name)
                for file in filter(None, (batch.input_file_id, batch.output_file_id, batch.error_file_id)):
                    await self._client.files.delete(file)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    @contextlib.asynccontextmanager
    async def _patience(self) -> AsyncIterator[Any]:
        """A limit on everything inside, with the package's errors as ours."""
        try:
            async with asyncio.timeout(self._endpoint.timeout):
                with translated_errors():
                    yield
        except TimeoutError:
            raise ClientError(client.TIMEOUT) from None
        except Refused as refusal:
            raise client.status_error(refusal.status, None) from None


def open_batches(endpoint: Endpoint, key: str) -> OpenAiBatches:
    """The batches of an endpoint."""
    return OpenAiBatches(endpoint, key)
