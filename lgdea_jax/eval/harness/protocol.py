"""Published protocols of benchmarks: which prompts, score rule, list of images and metric, from which public script.

The second mode of an evaluation (the first is `clean`) follows one protocol. It is called `official` only where
prompts, score rule, list and metric all come from a named public script; a protocol of which one of these is not the
script's is called `ours`, and so is `OURS`, which has no script: the rules that public scripts have in common, on our
prompts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lgdea_jax.errors import UserError
from lgdea_jax.evaluators.operating_point import RULES
from lgdea_jax.evaluators.zero_shot import ENSEMBLES, SCORINGS, Prompts
from lgdea_jax.findings.protocol_prompts import SOURCES, Source

PARTS = ("prompts", "rule", "list", "metric")
NAMES = ("gloria", "medclip", "chexzero", "kad", "carzero", "hi_ml", "ct_clip", "radfinder", "green_rfm", "ours")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """One protocol of one benchmark.

    Attributes:
      name: of NAMES.
      source: where it was read; None for `OURS`.
      prompts: by finding; empty for the benchmark's own, or those of `findings/prompts.py`.
      scoring, ensemble, standardised: see `evaluators.zero_shot`.
      findings: the labels that are scored, in order, as far as the data have them; () for the benchmark's.
      labels: which set of the records' labels these are (`records.LABEL_SETS_OF_RECORDS`); "" for the reference.
      merged: {label: findings whose highest score it has}.
      all_splits: the list is the whole data set, not one split of it.
      first_of_scan: of several reconstructions of a scan, the list has the first one.
      operating_point: a rule of `evaluators.operating_point`, "" for none.
      crop: of the images' geometry (`preprocess.centre_crop`), 0 for the checkpoint's own transform.
      sigma: of the smoothing of heatmaps, in patches.
      not_the_scripts: {one of PARTS: why it is not the script's}; empty for an official protocol.
      differs: what else is not as in the script, in words.
    """

    name: str
    source: Source | None = None
    prompts: Mapping[str, Prompts] = dataclasses.field(default_factory=dict)
    scoring: str = "pair"
    ensemble: str = "normalised"
    standardised: bool = False
    findings: tuple[str, ...] = ()
    labels: str = ""
    merged: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    all_splits: bool = False
    first_of_scan: bool = False
    operating_point: str = ""
    crop: int = 0
    sigma: float = 0.0
    not_the_scripts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    differs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        wrong = ({self.name} - set(NAMES)) | ({self.scoring} - set(SCORINGS)) | ({self.ensemble} - set(ENSEMBLES)) | (
            {self.operating_point} - {"", *RULES}) | (set(self.not_the_scripts) - set(PARTS))
        if wrong:
            raise ValueError(f"a protocol has {', '.join(sorted(wrong))}")

    @property
    def mode(self) -> str:
        """What its results are called: "official" or "ours"."""
        return "official" if self.source is not None and not self.not_the_scripts else "ours"

    def describe(self, further: tuple[str, ...] = ()) -> dict[str, Any]:
        """For results.json: name, repository, commit (of the main file), files, not_the_scripts, differs.

        Args:
          further: differences that this run has besides.
        """
        source = {} if self.source is None else {
            "repository": f"https://github.com/{self.source.repository}", "commit": self.source.commit,
            "files": dict(self.source.files)}
        return {"name": self.name, **source, "not_the_scripts": dict(self.not_the_scripts),
                "differs": [*self.differs, *further]}


OURS = Protocol("ours")


def published(name: str, *, source: str = "", **fields: Any) -> Protocol:
    """The protocol `name`, read in `SOURCES[source or name]`; further fields as of `Protocol`."""
    return Protocol(name, SOURCES[source or name], **fields)


def choose_protocol(benchmark: str, protocols: tuple[Protocol, ...], default: Protocol, *, mode: str,
                    name: str | None) -> Protocol:
    """The protocol of the second mode.

    Args:
      benchmark: its name; protocols: its published ones; default: of them, or OURS.
      mode: of --mode; name: of --protocol, None where it is not given.

    Raises:
      UserError: the mode "official" without a protocol that is, or "ours" with one that is official.
    """
    known = {protocol.name: protocol for protocol in (*protocols, OURS)}
    if name is not None:
        chosen = known[name]
    elif mode in ("official", "ours") and default.mode != mode:
        chosen = next((protocol for protocol in known.values() if protocol.mode == mode), OURS)
    else:
        chosen = default
    if mode in ("official", "ours") and chosen.mode != mode:
        if mode == "ours":
            raise UserError(f"--protocol={chosen.name} is official for {benchmark}: --mode=official, or "
                            "--protocol=ours")
        why = "; ".join(f"{part}: {reason}" for part, reason in chosen.not_the_scripts.items())
        raise UserError(f"{benchmark} has no official mode" + (f" of the protocol {chosen.name} ({why})" if why else
                        ": no public script has its prompts, score rule, list and metric") + "; use --mode=ours")
    return chosen
