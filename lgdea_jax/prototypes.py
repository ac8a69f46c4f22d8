"""What the evidence prototypes of a run stand for: findings, typical phrases and image patches of each, on a data set.

    python -m lgdea_jax.prototypes --checkpoint=RUN --data_dir=DATA --split=validation --out=OUT
    python -m lgdea_jax.report OUT --html=page.html

A phrase of a report belongs to prototype k with the probability p(k | phrase) (equation 4 of arXiv 2602.07540), an
image patch is nearer the larger their dot product is. OUT/prototypes.json has for each prototype, most used first:

- share: mean of p(k | phrase) over the evidence phrases of the split; its findings: shares of those phrases' findings;
- phrases: the distinct ones of highest p(k | phrase); a prototype may still be a weak second choice for all phrases;
- patches: the images whose best patch is nearest, at most one a subject, as OUT/patches/NNNN.png; and how many of the
  best patches of the nearest 20 images lie in a box of the prototype's first finding, beside the chance that any patch
  of any image does (where the data have such boxes).

The phrases and images come from the data set: OUT is under its terms.
"""

from __future__ import annotations

import numpy as np

from lgdea_jax import cli
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.data.source import open_records
from lgdea_jax.eval.harness.output import write_json
from lgdea_jax.inference import loading
from lgdea_jax.inference.prototypes import (
    FILE,
    LEAST_SHARE,
    PATCHES,
    assignments,
    describe,
    draw_patches,
    prototype_vectors,
    read_records,
)
from lgdea_jax.runtime.files import own_folder


def main(argv: list[str]) -> int:
    """Parses the flags and writes OUT; returns the exit status."""
    parser = cli.Parser(prog="python -m lgdea_jax.prototypes", description=__doc__.split("\n\n")[0],
                        epilog="\n\n".join(__doc__.split("\n\n")[1:]))
    parser.add_argument("--checkpoint", required=True, metavar="RUN", help="run directory of lgdea_jax.train")
    parser.add_argument("--data_dir", required=True, metavar="DATA", help="folder written by data_prep.build")
    parser.add_argument("--out", required=True, metavar="OUT", help="folder for prototypes.json and patches/")
    parser.add_argument("--split", default="validation", help="train, validation or test (default: validation)")
    parser.add_argument("--step", default="latest", help="latest, best or a step number (default: latest)")
    parser.add_argument("--records", type=int, default=2000, metavar="N",
                        help="use a seeded sample of N records; 0: all (default: 2000)")
    args = parser.parse_args(argv)
    metadata, source = load_metadata(args.data_dir), open_records(args.data_dir, args.split)
    rows = np.arange(len(source))
    if 0 < args.records < len(rows):
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:args.records])
    predict = loading.load_predictor(args.checkpoint, args.step)
    loading.check_transform(predict.transform, predict.frame, metadata.transform)
    mu = prototype_vectors(predict)
    with own_folder(args.out) as out:
        phrases, near, cells = read_records(predict, mu, source, rows, show=True)
        table = describe(assignments(predict, phrases.texts, len(mu)), phrases, near, cells)
        draw_patches(table, near, source, predict, out / PATCHES)
        used = np.array([row["share"] for row in table])
        left = sum(row["share"] < LEAST_SHARE for row in table)
        content = {
            "checkpoint": str(args.checkpoint), "step": int(predict.spec["step"]), "data": metadata.name,
            "split": args.split, "records": len(rows), "phrases": int(phrases.counts.sum()),
            "distinct_phrases": len(phrases.texts),
            "effective_number": float(np.exp(-(used * np.log(used + 1e-12)).sum())),
            "hardly_used": int(left), "terms": sorted({item.terms for item in metadata.sources}), "prototypes": table}
        write_json(out / FILE, content)
    print(f"{len(mu)} prototypes, {left} of them hardly used, {content['effective_number']:.1f} in effect, on "
          f"{content['phrases']} phrases ({len(phrases.texts)} distinct)")
    for row in table[:10]:
        names = ", ".join(f"{item['finding']} {100 * item['share']:.0f}%" for item in row["findings"][:2])
        phrases_of = "; ".join(item["phrase"] for item in row["phrases"][:2])
        print(f"  {row['prototype']:>4}  {100 * row['share']:5.1f}%  {names}: {phrases_of}")
    print(f"wrote {out / FILE} and {out / PATCHES}")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
