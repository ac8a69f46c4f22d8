"""What a user sets for extraction with a language model, from a config group or from flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from data_prep.extract.llm import data_use
from data_prep.extract.llm.clients.client import BACKENDS, STRUCTURED, Endpoint
from lgdea_jax.errors import UserError, choose, nearest


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to ask, how fast, and for how much.

    Attributes:
      model: as the endpoint calls it; base_url: "" for the vendor's own.
      temperature, timeout (seconds), structured: see `client.Endpoint`; a temperature below 0 is not sent.
      max_tokens: that a reply may have, 0 for what the task needs; a cut one is asked for again with twice as many.
      concurrency: requests at a time; requests_per_minute, tokens_per_minute: limits, 0 for none.
      attempts: tries of a request that fails for the moment; asks: questions until a reply can be used;
        max_runs: runs that bring no reply to a report until it is quarantined.
      max_cost: never spend more than this, earlier runs with the same cache, task and model included; 0 is no limit.
      prices: the user's price table, "" for the package's.
      cache: file of the replies, "" for one beside the output.
      batch: ask in batches at a lower price (genai only); batch_poll: seconds between looks at them.
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
    batch: bool = False
    batch_poll: float = 30.0
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
                               ("temperature", -1, 2), ("batch_poll", 0.01, 3600)):
            if not low <= getattr(self, key) <= high:
                raise UserError(f"llm.{key} must be {low} to {high:g}, not {getattr(self, key)}")

    def endpoint(self, backend: str) -> Endpoint:
        """Where and how to ask."""
        choose("extractor", backend, BACKENDS)
        return Endpoint(backend, self.model, self.base_url, self.timeout, self.concurrency, self.structured,
                        self.temperature if self.temperature >= 0 else None, data_use.find_route(self.base_url))
