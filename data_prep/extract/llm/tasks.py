"""What can be asked about a report: evidence, or the labels of a set. A task is a prompt, a schema and a reader.

Prompts are files (`prompts/NAME@VERSION.txt`) and are never changed once they were used: a change is a new version.
The fixed text comes first and the report last, so that servers can cache the common prefix.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from importlib import resources
from typing import Any

from data_prep.extract.llm import labels
from data_prep.extract.llm.labels import Labels
from data_prep.extract.llm.repair import load_object
from data_prep.extract.llm.replies import FINDING_NAMES, evidence_reply, json_schema, read_evidence
from data_prep.extract.llm.verify import Statement, verify
from data_prep.extract.schema import Extraction
from lgdea_jax.errors import choose
from lgdea_jax.findings.label_sets import LABEL_SETS

EVIDENCE = "evidence"
_VERSIONS = {"evidence": 1, "chexpert14": 1, "chexpert14_probability": 1, "ct_rate18": 1, "ct_rate18_probability": 1}
TASKS = (EVIDENCE, *labels.LABEL_TASKS)


@dataclasses.dataclass(frozen=True)
class Answer:
    """A usable reply.

    Attributes:
      value: `Extraction` or `Labels`.
      repairs: what was mended in the reply, by name.
      dropped: statements that were dropped, by reason; flags, lost: see `verify.Verified`.
    """

    value: Extraction | Labels
    repairs: Mapping[str, int]
    dropped: Mapping[str, int]
    flags: tuple[str, ...] = ()
    lost: tuple[tuple[str, Statement], ...] = ()


@dataclasses.dataclass(frozen=True)
class Task:
    """One kind of question.

    Attributes:
      name: with its prompt's version, as recorded with the data ("evidence@1").
      kind: one of TASKS; probability: whether percentages are asked for.
      prompt: the system prompt; schema: JSON schema of the reply.
      max_tokens: what a reply may be long; typical_tokens: what one is long, for estimates.
    """

    name: str
    kind: str
    probability: bool
    prompt: str
    schema: dict[str, Any]
    max_tokens: int
    typical_tokens: int

    @functools.cached_property
    def digest(self) -> bytes:
        """SHA-256 of the prompt and the schema: another prompt or schema is another question."""
        text = json.dumps([self.prompt, self.schema, self.max_tokens], sort_keys=True)
        return hashlib.sha256(text.encode("utf-8")).digest()

    @functools.cached_property
    def _model(self) -> Any:
        return evidence_reply() if self.kind == EVIDENCE else labels.reply_model(self.kind, self.probability)

    def read(self, reply: str, report: str) -> Answer:
        """Reads, repairs and verifies a reply to `report`.

        Raises:
          ReplyError: it cannot be used.
        """
        value, repairs = load_object(reply)
        counts = Counter(repairs)
        if self.kind == EVIDENCE:
            statements, normal, dropped, repaired = read_evidence(value)
            # Normality cannot be taken from half a list.
            verified = verify(report, statements, normal and "truncated" not in repairs, dropped)
            return Answer(verified.extraction, dict(counts + repaired), verified.dropped, verified.flags,
                          verified.lost)
        read, repaired = labels.read_labels(value, self.kind, self.probability, self._model)
        return Answer(read, dict(counts + repaired), {})


def load_task(kind: str, probability: bool = False) -> Task:
    """The task of that kind with the current version of its prompt.

    Args:
      kind: one of TASKS.
      probability: ask for a percentage per label (label sets only).

    Raises:
      UserError: unknown kind.
    """
    choose("task", kind, TASKS)
    name = f"{kind}_probability" if probability and kind != EVIDENCE else kind
    versioned = f"{name}@{_VERSIONS[name]}"
    prompts = resources.files("data_prep.extract.llm") / "prompts"
    text = (prompts / f"{versioned}.txt").read_text(encoding="utf-8").strip()
    if kind == EVIDENCE:
        prompt = text.replace("{findings}", ", ".join(FINDING_NAMES))
        return Task(versioned, kind, False, prompt, json_schema(evidence_reply()), 4096, 400)
    listed = [key if key == label else f"{key} {label}" for key, label in zip(labels.keys(kind), LABEL_SETS[kind])]
    prompt = text.replace("{labels}", ", ".join(listed))
    schema = json_schema(labels.reply_model(kind, probability))
    return Task(versioned, kind, bool(probability), prompt, schema, 1024, 6 * len(listed) if probability
                else 8 * len(listed))
