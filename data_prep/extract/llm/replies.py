"""What a language model is asked to answer about evidence, as pydantic models, and how an answer becomes statements.

The JSON schema of `evidence_reply` is sent where the server supports schemas; every reply is validated here anyway.
Reading is lenient where the meaning is plain ("positive" is "present") and counts what it changed; it never invents.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from data_prep.extract.llm.pricing import estimate_tokens
from data_prep.extract.llm.repair import ReplyError
from data_prep.extract.llm.verify import MALFORMED, UNKNOWN_CERTAINTY, UNKNOWN_FINDING, Statement
from lgdea_jax.errors import require
from lgdea_jax.findings.vocabulary import BY_NAME, NO_FINDING, find
from lgdea_jax.records import CERTAINTIES, LATERALITIES, SEVERITIES, TEMPORALITIES

FINDING_NAMES = tuple(name for name in BY_NAME if name != NO_FINDING)
MAX_ITEMS = 200  # No report states more; a model that repeats itself does.
# What a report of so many tokens (by our estimate) may state: in a bare list of findings each takes some four, and
# short reports may say more with less. In prose one statement takes about ten.
_FEWEST_ITEMS, _ITEM_TOKENS = 8, 4
_LONGEST = {"quote": 500, "anatomy": 80}  # Characters. A quote is the shortest run of words that states something.

# Other words for the known values, lower case. "" is "not stated".
_WORDS = {
    "certainty": {
        "positive": "present", "yes": "present", "definite": "present", "confirmed": "present", "affirmed": "present",
        "true": "present", "negative": "absent", "no": "absent", "negated": "absent", "denied": "absent",
        "false": "absent", "possible": "uncertain", "probable": "uncertain", "likely": "uncertain",
        "suspected": "uncertain", "questionable": "uncertain", "equivocal": "uncertain", "maybe": "uncertain",
        "hedged": "uncertain"},
    "laterality": {
        "both": "bilateral", "bilaterally": "bilateral", "left-sided": "left", "right-sided": "right", "l": "left",
        "r": "right", "left side": "left", "right side": "right", "central": "midline", "middle": "midline"},
    "severity": {
        "tiny": "trace", "minimal": "trace", "small": "mild", "slight": "mild", "minor": "mild", "medium": "moderate",
        "large": "severe", "marked": "severe", "extensive": "severe", "massive": "severe"},
    "temporality": {
        "stable": "unchanged", "chronic": "unchanged", "no change": "unchanged", "persistent": "unchanged",
        "increased": "worsened", "worse": "worsened", "progressed": "worsened", "decreased": "improved",
        "better": "improved", "resolving": "improved", "acute": "new", "old": "historical", "prior": "historical",
        "past": "historical", "history": "historical"},
}
_KNOWN = {"certainty": CERTAINTIES, "laterality": LATERALITIES, "severity": SEVERITIES, "temporality": TEMPORALITIES}
_NOTHING = frozenset(("", "none", "n/a", "na", "null", "unknown", "unspecified", "not stated", "not specified"))


@functools.cache
def evidence_reply() -> Any:
    """The pydantic model of the whole answer.

    The quote comes first in an item, so that the model reads before it judges; `normal` comes first in the answer, so
    that a truncated one still holds it.

    Raises:
      UserError: pydantic is not installed.
    """
    pydantic = require("pydantic", "data", "an extractor that asks a language model")
    strict = pydantic.ConfigDict(extra="forbid")
    item = pydantic.create_model(
        "EvidenceItem", __config__=strict, quote=(str, ...), finding=(Literal[FINDING_NAMES], ...),
        certainty=(Literal[CERTAINTIES], ...), laterality=(Literal[LATERALITIES], ...),
        severity=(Literal[SEVERITIES], ...), temporality=(Literal[TEMPORALITIES], ...), anatomy=(str, ...))
    return pydantic.create_model("EvidenceReply", __config__=strict, normal=(bool, ...),
                                 evidence=(list[item], pydantic.Field(max_length=MAX_ITEMS)))


def json_schema(model: Any) -> dict[str, Any]:
    """A pydantic model's JSON schema without references, titles and lengths: what servers agree on."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def plain(node: Any) -> Any:
        if isinstance(node, list):
            return [plain(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return plain(definitions[node["$ref"].rsplit("/", 1)[1]])
        dropped = ("title", "maxItems", "description")
        # Below "properties" the keys are names of fields, not of the schema language.
        return {key: {name: plain(value) for name, value in item.items()} if key == "properties" else plain(item)
                for key, item in node.items() if key not in dropped}

    return plain(schema)


def bounded(schema: Mapping[str, Any], report: str) -> dict[str, Any]:
    """The schema with a most for every list and free string: a reply that is held to it comes to an end.

    For a model in this process only. Servers are not sent such bounds: OpenAI's strict mode does not take the length of
    strings, others refuse what they do not know, and most translate a schema once for all requests.

    Args:
      schema: as `json_schema` makes it; report: what the reply is about.

    Returns:
      A copy.
    """
    items = min(_FEWEST_ITEMS + estimate_tokens(report) // _ITEM_TOKENS, MAX_ITEMS)

    def bound(node: Any, name: str = "") -> Any:
        if not isinstance(node, Mapping):
            return node
        found = {key: {field: bound(value, field) for field, value in item.items()} if key == "properties"
                 else bound(item) for key, item in node.items()}
        if node.get("type") == "array":
            found["maxItems"] = items
        elif node.get("type") == "string" and "enum" not in node:
            found["maxLength"] = min(_LONGEST.get(name, max(_LONGEST.values())), max(1, len(report)))
        return found

    return bound(schema)


def read_evidence(value: dict[str, Any]) -> tuple[list[Statement], bool, Counter[str], Counter[str]]:
    """The statements of a decoded reply.

    Args:
      value: the JSON object.

    Returns:
      (statements, normal, dropped, repaired): counts of dropped items by reason and of values that were put right.

    Raises:
      ReplyError: it is no evidence reply at all.
    """
    dropped: Counter[str] = Counter()
    repaired: Counter[str] = Counter()
    items = _items(value)
    if not isinstance(items, list):
        raise ReplyError("no list of evidence in the reply")
    if len(items) > MAX_ITEMS:
        raise ReplyError("too many items in the reply")
    normal = value.get("normal", False)
    if not isinstance(normal, bool):
        normal = str(normal).strip().lower() == "true"
        repaired["normal"] += 1
    usable = []
    for item in items:
        fixed = _item(item, dropped, repaired)
        if fixed is not None:
            usable.append(fixed)
    if items and not usable and not dropped[UNKNOWN_FINDING]:
        raise ReplyError("no item of the reply has the fields that were asked for")
    try:
        reply = evidence_reply().model_validate({"normal": normal, "evidence": usable})
    except ValueError:  # pydantic's; its text would show the reply.
        raise ReplyError("the reply does not fit the schema") from None
    statements = [Statement(item.finding, item.anatomy, item.laterality, item.severity, item.certainty,
                            item.temporality, item.quote) for item in reply.evidence]
    return statements, reply.normal, dropped, repaired


def quotes(value: dict[str, Any]) -> list[str]:
    """What a decoded reply quotes, for good or bad reasons; items without a quote count as empty quotes."""
    found = [_quote(item) if isinstance(item, dict) else None for item in _items(value) or ()]
    return [quote if isinstance(quote, str) else "" for quote in found]


def _items(value: dict[str, Any]) -> Any:
    return value.get("evidence", value.get("findings"))


def _quote(item: dict[str, Any]) -> Any:
    return item.get("quote", item.get("phrase"))


def _item(item: Any, dropped: Counter[str], repaired: Counter[str]) -> dict[str, Any] | None:
    if not isinstance(item, dict):
        dropped[MALFORMED] += 1
        return None
    quote = _quote(item)
    name = item.get("finding")
    if not isinstance(quote, str) or not isinstance(name, str) or "certainty" not in item:
        dropped[MALFORMED] += 1
        return None
    finding = find(name)
    if finding is None or finding == NO_FINDING:
        dropped[UNKNOWN_FINDING] += 1
        return None
    if finding != name:
        repaired["finding"] += 1
    fixed: dict[str, Any] = {"quote": quote, "finding": finding}
    for field, known in _KNOWN.items():
        given = item.get(field, "")
        text = "" if given is None else str(given).strip().lower()
        text = "" if text in _NOTHING else text
        chosen = text if text in known else _WORDS[field].get(text, "")
        if field == "certainty" and not chosen:
            dropped[UNKNOWN_CERTAINTY] += 1
            return None
        if chosen != given:
            repaired[field] += 1
        fixed[field] = chosen
    fixed["anatomy"] = " ".join(str(item.get("anatomy") or "").split()).lower()[:_LONGEST["anatomy"]]
    if fixed["anatomy"] in _NOTHING:
        fixed["anatomy"] = ""
    return fixed
