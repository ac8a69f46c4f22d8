"""Uploads an exported model to the Hugging Face Hub, for `lgdea_jax.load("hf://OWNER/NAME")` elsewhere.

    python -m lgdea_jax.export --checkpoint=RUN --format=lgdea --out=DIR
    python -m lgdea_jax.card --checkpoint=DIR
    python -m lgdea_jax.push DIR OWNER/NAME

The model is private unless --public is given. A model of data under credentialed or unstated terms is uploaded with
--attest_data_use only, whose words become part of the model's page. The page is the card, or the terms where there is
none. Log in first with `hf auth login` (or HF_TOKEN). The command prints the address with its commit, which always
means the same files.
"""

from __future__ import annotations

from pathlib import Path

from lgdea_jax import __version__, cli
from lgdea_jax.errors import UserError
from lgdea_jax.inference import model_folder
from lgdea_jax.inference.model_folder import CARD, FILES, TERMS
from lgdea_jax.runtime import hub

ASKED = ("credentialed", "unstated")  # Terms of data whose models are uploaded with an attestation only.
MIN_ATTESTATION = 20  # Characters: enough to say who permits what.


def main(argv: list[str]) -> int:
    """Parses the flags and uploads; returns the exit status."""
    first, *rest = __doc__.split("\n\n")
    parser = cli.Parser(prog="python -m lgdea_jax.push", description=first, epilog="\n\n".join(rest))
    parser.add_argument("folder", metavar="DIR", help="written by lgdea_jax.export --format=lgdea")
    parser.add_argument("name", metavar="OWNER/NAME", help="of the model on the hub; it is made if there is none")
    parser.add_argument("--public", action="store_true", help="everybody may see and download it")
    parser.add_argument("--attest_data_use", default="", metavar="TEXT",
                        help="who permits that a model of credentialed data is uploaded; published with the model")
    args = parser.parse_args(argv)
    folder = Path(args.folder)
    if not model_folder.is_model(folder):
        raise UserError(f"{folder} is no exported model: python -m lgdea_jax.export --checkpoint=RUN --format=lgdea "
                        "--out=DIR writes one")
    attestation = check_terms(model_folder.sources(model_folder.read_spec(folder)), args.attest_data_use)
    names = [name for name in (*FILES, CARD) if (folder / name).is_file()]
    address = hub.upload(args.name, {**{name: folder / name for name in names},
                                     "README.md": page(folder, attestation).encode()},
                         private=not args.public, message=f"LGDEA-JAX {__version__}")
    print(f"uploaded {', '.join(names)} and the page: {address} ({'public' if args.public else 'private'})")
    return cli.OK


def check_terms(sources: list[dict[str, str]], attestation: str) -> str:
    """The attestation as one line.

    Args:
      sources: of `model_folder.sources`; attestation: the user's words, "" without.

    Raises:
      UserError: the terms of the data need one, or it is too short to say anything.
    """
    attestation = " ".join(attestation.split())
    asked = [item for item in sources if item["terms"] in ASKED]
    if asked and not attestation:
        named = ", ".join(f"{item['source']} ({item['terms']})" for item in asked)
        raise UserError(f"the model was trained on {named}: read the terms of those data, and state with "
                        '--attest_data_use="..." who permits that the model is uploaded')
    if attestation and len(attestation) < MIN_ATTESTATION:
        raise UserError(f"--attest_data_use must say in at least {MIN_ATTESTATION} characters who permits what: it is "
                        "published with the model")
    return attestation


def page(folder: Path, attestation: str) -> str:
    """The model's page on the hub: what the hub reads of it, how to load it, its card or its terms."""
    card = folder / CARD
    lines = ["---", "library_name: lgdea-jax", "tags: [medical, radiology, vision-language, zero-shot]", "---", "",
             (card if card.is_file() else folder / TERMS).read_text(encoding="utf-8").rstrip(), ""]
    if attestation:
        lines += ["## Data use", "", f"Attested by who uploaded the model: {attestation}", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
