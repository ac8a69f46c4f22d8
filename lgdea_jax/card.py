"""A model card for a run, filled in from its checkpoint and results; TODO lines for what only the authors know.

    python -m lgdea_jax.card --checkpoint=RUN --results=OUT
    python -m lgdea_jax.card --checkpoint=RUN --step=best --results=OUT_A --results=OUT_B --out=CARD.md

Writes RUN/MODEL_CARD.md (or --out=FILE) after Mitchell et al. (2019): method, data, training, numbers with intervals
and their commands, subgroups, limits. Lines that begin with "TODO:" are for the authors: the card is then unfinished.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lgdea_jax import cli
from lgdea_jax.errors import UserError
from lgdea_jax.eval.harness.output import config_hash
from lgdea_jax.inference import loading, model_folder
from lgdea_jax.inference.model_folder import CARD as FILE
from lgdea_jax.pages.markdown import block, code, plain
from lgdea_jax.pages.runs import load_run
from lgdea_jax.runtime import hub
from lgdea_jax.runtime.files import output_file, write_text_atomically

# The keys of the config that the card lists.
SETTINGS = ("total_steps", "seed", "dtype", "batch.pairs", "batch.images", "batch.reports", "data.pairs", "image.size",
            "model.image.name", "model.image.weights", "model.text.name", "model.text.weights", "model.width",
            "model.prototypes", "optim.rate", "optim.weight_decay", "optim.ema")


def main(argv: list[str]) -> int:
    """Parses the flags, writes the card; returns the exit status."""
    first, *rest = __doc__.split("\n\n")
    parser = cli.Parser(prog="python -m lgdea_jax.card", description=first, epilog="\n\n".join(rest))
    parser.add_argument("--checkpoint", required=True, metavar="RUN", help="run directory of lgdea_jax.train")
    parser.add_argument("--results", action="append", default=[], metavar="OUT",
                        help="output folder of an evaluation script; may be repeated")
    parser.add_argument("--out", default="", metavar="FILE", help=f"the card (default: RUN/{FILE})")
    parser.add_argument("--step", default="latest", help="latest, best or a step number (default: latest)")
    args = parser.parse_args(argv)
    runs = [load_run(Path(folder)) for folder in args.results]
    spec = loading.load_spec(args.checkpoint, args.step)
    for run in runs:
        theirs = run.content.get("config_hash"), run.content.get("step")
        if theirs != (config_hash(spec["config"]), int(spec["step"])):
            raise UserError(f"{run.folder} holds results of another run or step than {args.checkpoint} at step "
                            f"{spec['step']}")
    if not args.out and hub.is_address(args.checkpoint):
        raise UserError(f"--out=FILE is needed: {args.checkpoint} is not on this disk")
    path = Path(args.out) if args.out else Path(args.checkpoint) / FILE
    write(path, card(spec, [run.content for run in runs]))
    return cli.OK


def write(path: Path, text: str) -> None:
    """Writes a card and prints how many lines are left for the authors.

    Raises:
      UserError: it cannot be written.
    """
    with output_file(path):
        write_text_atomically(path, text)
    print(f"wrote {path}: {len(re.findall('TODO:', text))} lines begin with TODO and are yours to write")


def card(spec: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> str:
    """The text of a model card.

    Args:
      spec: the checkpoint's; results: contents of results.json files of that checkpoint.
    """
    config, data = spec["config"], spec["data"]
    items = ", ".join(f"{count:,} {stream}" for stream, count in data["items"].items())
    lines = [
        "# Model card", "",
        "**Research use only, not a medical device.** Nothing here may guide the care of a patient.", "",
        "## Model", "",
        f"- Method {code(config['method'])} of LGDEA-JAX (docs/method.md states what is published and what is not).",
        f"- Step {spec['step']} of {config['total_steps']}; config hash {code(config_hash(config))}; "
        f"jax {plain(spec['versions']['jax'])}.",
        f"- Images go through {code(spec['transform'])}; texts through a tokeniser of SHA-256 "
        f"{code(spec['tokenizer_digest'][:16])}.", "",
        "TODO: authors, contact, licence of the weights, how to cite.", "",
        "| setting | value |", "|---|---|",
        *(f"| {code(key)} | {code(_get(config, key))} |"
          for key in SETTINGS if _get(config, key) not in (None, "")), "",
        "## Training data", "",
        f"- {', '.join(map(plain, data['names']))}: {items} (digest {code(data['digest'][:16])}). The data sets' own "
        "sheets (`python -m data_prep.datasheet`) have their origin and their terms.",
        *(f"- Origin {plain(item['source'])}: licence {plain(item['licence'])}, terms {plain(item['terms'])}."
          for item in model_folder.sources(spec)),
        f"- Labels known to the data: {', '.join(map(plain, spec['label_names'])) or 'none'}. Pretraining "
        + ("uses them." if config["method"] == "supervised" else "does not use them: its findings come from reports."),
        f"- The checkpoint and its exports carry the tokeniser's words in plain text. {_words(spec)}",
        "", "TODO: whose images these are: hospitals, years, countries, devices, ages, sexes.", "",
        "## Results", ""]
    if not results:
        lines += ["No results were given: `python -m lgdea_jax.card --checkpoint=RUN --results=OUT`.", ""]
    for content in results:
        lines += _results(content)
    lines += [
        "## Intended use and limits", "",
        "- For research on vision-language pretraining. Not validated for any clinical use.",
        "- Scores order images for one prompt; they are no probabilities, unless calibrated on images like those at "
        "hand, and do not compare between prompts.",
        "- Heatmaps show where patch embeddings agree with a text, not why a score is what it is.",
        "- Findings were read from reports by a program or a language model: its errors are in the training data.",
        "", "TODO: what the model was tried on and failed at; groups of patients that the results do not cover.", ""]
    return "\n".join(lines)


def _results(content: Mapping[str, Any]) -> list[str]:
    lines = [f"### {plain(content['benchmark'])}", "",
             f"{plain(content['data'])}, {plain(content['split'])} split: {content.get('images', '?')} images of "
             f"{content.get('subjects', '?')} subjects. 95% intervals over subjects.", "",
             block(content["command"]), ""]
    leakage = content.get("leakage")
    if leakage and leakage.get("subjects_in_common"):
        lines += [f"**{leakage['subjects_in_common']} subjects were in the training data.**", ""]
    for result in content["results"]:
        overall = {name: entry for name, entry in result["metrics"].items()
                   if name.count("/") == 1 or name.startswith("retrieval/")}
        lines += [f"| metric ({plain(result['mode'])}) | value [95% interval] | n |", "|---|---|---|",
                  *(f"| {plain(name)} | {number(entry)} | {entry['n']} |" for name, entry in overall.items()), ""]
        for attribute, groups in result.get("subgroups", {}).items():
            names = [name for name in ("zero_shot/auroc", "grounding/cnr")
                     if any(name in group["metrics"] for group in groups.values())]
            if names:
                lines += [f"| by {plain(attribute)} ({plain(result['mode'])}) | images | {' | '.join(names)} |",
                          "|---|---|" + "---|" * len(names),
                          *(f"| {plain(name)} | {group['images']} | "
                            + " | ".join(number(group["metrics"].get(metric)) for metric in names) + " |"
                            for name, group in groups.items()), ""]
    return lines


def _words(spec: Mapping[str, Any]) -> str:
    subjects = spec.get("tokenizer_subjects")
    if not subjects:
        return "It is not one of `data_prep.build`: see where it comes from."
    return (f"Each is in the reports of at least {subjects} subjects: rarer ones, such as names of patients, are left "
            "out; names in many reports (of staff, of the hospital) are not.")


def number(entry: Mapping[str, Any] | None) -> str:
    """A metric's entry of results.json as text."""
    if entry is None or entry["value"] is None:
        return "-"
    return f"{entry['value']:.3f}" + ("" if entry["low"] is None else f" [{entry['low']:.3f}, {entry['high']:.3f}]")


def _get(config: Mapping[str, Any], key: str) -> Any:
    for part in key.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None  # type: ignore[assignment]
    value = json.loads(json.dumps(config))
    return Path(value).name if key.endswith(".weights") and value else value  # Its folder is nobody's business.


if __name__ == "__main__":
    cli.run(main)
