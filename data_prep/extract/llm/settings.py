"""What a user sets for extraction with a language model, from a config group or from flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from data_prep.extract.llm import data_use
from data_prep.extract.llm.clients.client import BACKENDS, STRUCTURED, Endpoint
from lgdea_jax.errors import UserError, choose, nearest

_FEWEST_PART_TOKENS = 100


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to ask, how fast, and for how much.

    Attributes:
      model: as the endpoint calls it, for local the file; base_url: "" for the vendor's own.
      temperature, timeout (seconds), structured: see `client.Endpoint`; a temperature below 0 is not sent.
      max_tokens: that a reply may have, 0 for what the task needs; a cut one is asked for again with twice as many.
      concurrency: requests at a time; requests_per_minute, tokens_per_minute: limits, 0 for none.
      attempts: tries of a request that fails for the moment; asks: questions until a reply can be used;
        max_runs: runs that bring no reply to a report until it is quarantined.
      max_cost: never spend more than this, earlier runs with the same cache, task and model included; 0 is no limit.
      prices: the user's price table, "" for the package's.
      cache: file of the replies, "" for one beside the output.
      prompt, examples: the user's own files, see `own_prompt`.
      votes: passes over each report, each with its own seed; what most of them state counts.
      part_tokens: a longer report is asked about in overlapping parts of so many tokens, 0: never.
      sample: reports that a dry run asks about to measure speed and cost; -1: 10 in this process, none of a server.
      batch: ask in batches at a lower price (genai, openai); batch_poll: seconds between looks at them.
      exchange: folder of questions and answers as files, for vLLM's `run-batch` (openai only).
      threads: of a local model, 0 for the cores that the process may use; gpu_layers: layers of it on the GPU, -1 for
        all that fit; context: tokens of prompt, report and reply together that it has room for.
      attest_data_use: who permits sending credentialed reports to a remote endpoint.
    """

    model: str = ""
    base_url: str = ""
    temperature: float = 0.0
    max_tokens: int = 0
    timeout: float = 120.0
    structured: str = "json_schema"
    concurrency: int = 8
    requests_per_minute: float = 0.0
    tokens_per_minute: float = 0.0
    attempts: int = 6
    asks: int = 2
    max_runs: int = 3
    max_cost: float = 0.0
    prices: str = ""
    cache: str = ""
    prompt: str = ""
    examples: str = ""
    votes: int = 1
    part_tokens: int = 2000
    sample: int = -1
    batch: bool = False
    batch_poll: float = 30.0
    exchange: str = ""
    threads: int = 0
    gpu_layers: int = -1
    context: int = 8192
    attest_data_use: str = ""

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Settings:
        """Settings from a mapping; an unknown key is an error.

        Raises:
          UserError: so, or a value is out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for key in values:
            if key not in known:
                raise UserError(f"unknown config key 'llm.{key}'{nearest(key, known)}")
        settings = cls(**values)
        settings.check()
        return settings

    def check(self) -> None:
        """Raises a UserError for the first value that makes no sense."""
        if not self.model:
            raise UserError("llm.model is needed: the model's name at the endpoint")
        if self.base_url:
            data_use.check_url(self.base_url)
        choose("llm.structured", self.structured, STRUCTURED)
        for key, low, high in (("concurrency", 1, 1000), ("attempts", 1, 100), ("asks", 1, 5), ("max_runs", 1, 1000),
                               ("timeout", 0.1, 86400), ("max_tokens", 0, 1_000_000),
                               ("requests_per_minute", 0, 1e9), ("tokens_per_minute", 0, 1e12), ("max_cost", 0, 1e9),
                               ("temperature", -1, 2), ("batch_poll", 0.01, 3600), ("threads", 0, 1024),
                               ("gpu_layers", -1, 10_000), ("context", 256, 10_000_000), ("votes", 1, 15),
                               ("part_tokens", 0, 1_000_000),
                               ("sample", -1, 1000)):
            if not low <= getattr(self, key) <= high:
                raise UserError(f"llm.{key} must be {low} to {high:g}, not {getattr(self, key)}")
        if self.votes % 2 == 0:
            raise UserError(f"llm.votes must be odd, not {self.votes}: else there is no majority")
        if self.votes > 1 and self.temperature == 0:
            raise UserError("llm.votes needs llm.temperature above 0 (0.7, for example): at 0 every pass gives the "
                            "same reply")
        if 0 < self.part_tokens < _FEWEST_PART_TOKENS:
            raise UserError(f"llm.part_tokens must be 0 or at least {_FEWEST_PART_TOKENS}, not {self.part_tokens}")

    def endpoint(self, backend: str) -> Endpoint:
        """Where and how to ask."""
        choose("extractor", backend, BACKENDS)
        if backend == "local" and self.base_url:
            raise UserError("llm.base_url is for servers: the extractor local reads the file llm.model")
        if self.exchange and (backend != "openai" or self.base_url):
            raise UserError("llm.exchange is for the extractor openai without llm.base_url: nothing is sent, files are "
                            "written")
        unsent = backend == "local" or self.exchange
        route = data_use.IN_PROCESS if unsent else data_use.find_route(self.base_url)
        return Endpoint(backend, self.model, self.base_url, self.timeout, self.concurrency, self.structured,
                        self.temperature if self.temperature >= 0 else None, self.threads, self.gpu_layers,
                        self.context, route)
