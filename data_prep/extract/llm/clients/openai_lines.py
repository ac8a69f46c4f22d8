"""Questions and answers of the OpenAI protocol as lines of JSON, as its batches and vLLM's `run-batch` take them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from openai.types.chat import ChatCompletion

from data_prep.extract.llm.clients import client
from data_prep.extract.llm.clients.client import ClientError, Endpoint, Reply, Request
from data_prep.extract.llm.clients.openai import LENGTH, Form, messages, read_reply, subject

PATH = "/v1/chat/completions"


def question_lines(requests: Sequence[Request], endpoint: Endpoint, form: Form) -> Iterable[str]:
    """A line for each request, numbered in order."""
    for number, request in enumerate(requests):
        body = {"model": endpoint.model, "messages": messages(request), **form.options(request, endpoint.temperature)}
        yield json.dumps({"custom_id": str(number), "method": "POST", "url": PATH, "body": body}) + "\n"


def read_lines(text: str, form: str, about: set[str]) -> dict[int, Reply | ClientError]:
    """Number of the request -> what came of it. Lines that are not the protocol's are passed over.

    Args:
      text: the file; form: for the record; about: receives the parameters that refusals are about.
    """
    found: dict[int, Reply | ClientError] = {}
    for line in text.split("\n"):  # Not `splitlines`: a string may hold other separators.
        try:
            value = json.loads(line)
            number = int(value["custom_id"])
            found[number] = _outcome(value, form, about)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
            continue
    return found


def _outcome(value: Mapping[str, Any], form: str, about: set[str]) -> Reply | ClientError:
    response, error = value.get("response"), value.get("error")
    if not response:
        expired = isinstance(error, dict) and error.get("code") == "batch_expired"
        return ClientError(client.EXPIRED if expired else client.SERVER)
    status, body = int(response.get("status_code", 200)), response.get("body", response)
    if status >= 400:
        # vLLM puts what went wrong beside the response.
        what = subject(body or error) if status in (400, 422) else ""
        about.add(what)
        return ClientError(client.TOO_LONG, status) if what == LENGTH else client.status_error(status, None)
    try:
        return read_reply(ChatCompletion.construct(**body), form)
    except ClientError as fault:
        return fault


def in_order(found: Mapping[int, Reply | ClientError], total: int, missing: str) -> tuple[Reply | ClientError, ...]:
    """A reply or an error for each of `total` requests; `missing` is the kind of the error where there is neither."""
    return tuple(found.get(number, ClientError(missing)) for number in range(total))
