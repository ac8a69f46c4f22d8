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
from data_prep.extract.llm.questions import own_prompt
from data_prep.extract.llm.questions.own_prompt import Own
from data_prep.extract.llm.repair import ReplyError, load_objects
from data_prep.extract.llm.replies import FINDING_NAMES, evidence_reply, json_schema, quotes, read_evidence
from data_prep.extract.llm.verify import UNSUPPORTED, Report, Statement, polarity, verify
from data_prep.extract.rules import extractor as rules
from data_prep.extract.schema import Extraction
from lgdea_jax.errors import UserError, choose
from lgdea_jax.findings.label_sets import LABEL_SETS

EVIDENCE = "evidence"
_VERSIONS = {"evidence": 2, "chexpert14": 2, "chexpert14_probability": 2, "ct_rate18": 2, "ct_rate18_probability": 2}
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

    @property
    def statements(self) -> int:
        """Statements of the reply, dropped ones included; 0 of labels."""
        kept = len(self.value.evidence) if isinstance(self.value, Extraction) else 0
        return kept + sum(self.dropped.values())

    @property
    def unsupported(self) -> int:
        """Those that do not quote the report."""
        return self.dropped.get(UNSUPPORTED, 0)


@dataclasses.dataclass(frozen=True)
class Task:
    """One kind of question.

    Attributes:
      name: with its prompt's version, as recorded with the data ("evidence@2").
      kind: one of TASKS; probability: whether percentages are asked for.
      prompt: the system prompt, "" where every language has its own; schema: JSON schema of the reply.
      max_tokens: what a reply may be long; typical_tokens: what one is long, for estimates.
      prompts: language -> prompt where they differ; own: what the user gave in place of the package's prompt, or None.
    """

    name: str
    kind: str
    probability: bool
    prompt: str
    schema: dict[str, Any]
    max_tokens: int
    typical_tokens: int
    prompts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    own: Own | None = None

    @functools.cached_property
    def digest(self) -> bytes:
        """SHA-256 of the prompts and the schema: another prompt or schema is another question."""
        text = json.dumps([self.prompt, self.schema, *([self.prompts] if self.prompts else [])], sort_keys=True)
        return hashlib.sha256(text.encode("utf-8")).digest()

    def language(self, stated: str, report: str) -> str:
        """The language whose prompt a report gets; "" where the prompt is the same for all.

        Args:
          stated: of the report, "" where it is not; then its words tell.

        Raises:
          UserError: there is no prompt for it.
        """
        if not self.prompts:
            return ""
        code = own_prompt.language_of(stated, report)
        if code in self.prompts or self.prompt:
            return code
        raise UserError(f"llm.prompt has no file for reports in {code!r}, only for {', '.join(sorted(self.prompts))}")

    def prompt_for(self, language: str) -> str:
        """The prompt for reports in that language, as `language` gives it."""
        return self.prompts.get(language, self.prompt)

    @functools.cached_property
    def longest_prompt(self) -> str:
        """Of all."""
        return max((self.prompt, *self.prompts.values()), key=len)

    @functools.cached_property
    def _model(self) -> Any:
        return evidence_reply() if self.kind == EVIDENCE else labels.reply_model(self.kind, self.probability)

    def read(self, reply: str, report: str, *, cross_check: bool = False) -> Answer:
        """Reads, repairs and verifies a reply.

        Args:
          reply: as it came; report: that was sent.
          cross_check: flag what the rules read the other way round (`verify.polarity`); takes longer than all the rest.

        Raises:
          ReplyError: it cannot be used.
        """
        objects, repairs = load_objects(reply)
        error: ReplyError | None = None
        for value in reversed(objects):  # Drafts come first.
            try:
                return self._read(value, report, Counter(repairs), cross_check)
            except ReplyError as unfit:
                error = error or unfit
        raise error

    def _read(self, value: dict[str, Any], report: str, repairs: Counter[str], cross_check: bool) -> Answer:
        if self.kind != EVIDENCE:
            read, repaired = labels.read_labels(value, self.kind, self.probability, self._model)
            return Answer(read, dict(repairs + repaired), {})
        statements, normal, dropped, repaired = read_evidence(value)
        verified = verify(report, statements, normal, dropped)
        evidence = verified.extraction.evidence
        if not evidence and (quoted := quotes(value)) and not any(map(Report(report).find, quoted)):
            raise ReplyError("no statement of the reply quotes the report")
        flags = verified.flags
        if cross_check and evidence:
            flags += tuple(f"polarity {name}" for name in polarity(evidence, rules.extract(report).evidence))
        return Answer(verified.extraction, dict(repairs + repaired), verified.dropped, flags, verified.lost)


def load_task(kind: str, probability: bool = False, *, prompt: str = "", examples: str = "") -> Task:
    """The task of that kind with the current version of its prompt, or the user's own.

    Args:
      kind: one of TASKS.
      probability: ask for a percentage per label (label sets only).
      prompt, examples: the user's files, see `own_prompt`.

    Raises:
      UserError: unknown kind; a fault in a file of the user's.
    """
    choose("task", kind, TASKS)
    probability = bool(probability) and kind != EVIDENCE
    name = f"{kind}_probability" if probability else kind
    version = f"{_VERSIONS[name]}"
    text = (resources.files("data_prep.extract.llm") / "prompts" / f"{name}@{version}.txt").read_text(encoding="utf-8")
    if kind == EVIDENCE:
        placeholder, listed, model, most, typical = "{findings}", FINDING_NAMES, evidence_reply(), 4096, 400
        right = own_prompt.evidence_answer
    else:
        listed = [key if key == label else f"{key} {label}" for key, label in zip(labels.keys(kind), LABEL_SETS[kind])]
        placeholder, model, most = "{labels}", labels.reply_model(kind, probability), 1024
        typical = (6 if probability else 8) * len(listed)
        right = functools.partial(labels.right_answer, label_set=kind, probability=probability, model=model)
    prompts, own = {"": text.strip()}, None
    if prompt or examples:
        own = own_prompt.load(prompt, examples, prompts[""], placeholder, right)
        version = f"{'own' if prompt else version}-{own.digest[:8]}"
        prompts = own.prompts
    filled = {code: text.replace(placeholder, ", ".join(listed)) for code, text in prompts.items()}
    return Task(f"{name}@{version}", kind, probability, filled.pop("", ""), json_schema(model), most, typical, filled,
                own)
