"""What questions cost: a price table that the user can edit, and an offline estimate of token counts."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from lgdea_jax.errors import UserError

# Tokenisers differ by model. Against OpenAI's cl100k_base, over 1,500 Open-I reports: the sum is 0.4% too low, single
# reports are within 14% (95% of them), the prompts 11 to 26% too high. Vendors' newer tokenisers were not measured.
ESTIMATE_ERROR = 0.20
_PIECE = re.compile(r"[^\W\d_]{1,6}|\d{1,3}|_{1,3}|[^\w\s]|\n")
_RUN = re.compile(r"[A-Za-z']+|[0-9]+|[!-&(-/:-@\[-`{-~]+(?![A-Za-z'])")
MILLION = 1_000_000


@dataclasses.dataclass(frozen=True)
class Price:
    """Of a million tokens in `currency`; `batch` is the share of it that a batch costs."""

    input: float
    output: float
    currency: str = "USD"
    as_of: str = ""
    batch: float = 0.5

    def in_batches(self) -> Price:
        """The price of the same tokens in a batch."""
        return dataclasses.replace(self, input=self.input * self.batch, output=self.output * self.batch)

    def cost(self, tokens_in: float, tokens_out: float) -> float:
        """Of that many tokens."""
        return (tokens_in * self.input + tokens_out * self.output) / MILLION


FREE = Price(0.0, 0.0)


def load_price(model: str, path: str = "", *, local: bool = False) -> Price | None:
    """The price of a model: that of the longest name in the table with which the model's name begins.

    Args:
      model: as the endpoint calls it; a vendor's prefix ("google/gemini-...") is ignored.
      path: the user's table; "" takes the one that comes with the package.
      local: a model on one's own machine costs nothing unless the user's own table names it.

    Returns:
      The price, or None where the table does not name the model.

    Raises:
      UserError: the table cannot be read.
    """
    if local and not path:
        return FREE
    models = load_prices(path)
    short = model.rsplit("/", 1)[-1]
    for name in sorted(models, key=len, reverse=True):
        # "gpt-4o-mini-2024-07-18" is gpt-4o-mini; "gpt-4o-minimax" is not.
        if re.match(rf"{re.escape(name)}(?![a-z])", model) or re.match(rf"{re.escape(name)}(?![a-z])", short):
            return models[name]
    return FREE if local else None


def load_prices(path: str = "") -> dict[str, Price]:
    """The price table: model -> price. `path` and errors as in `load_price`."""
    file = Path(path) if path else resources.files("data_prep.extract.llm") / "prices.json"
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        currency, as_of = str(table.get("currency", "USD")), str(table.get("as_of", ""))
        models = {str(name): Price(float(price["input"]), float(price["output"]), currency, as_of,
                                   float(price.get("batch", 0.5))) for name, price in table["models"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"cannot read the price table {path}: it is JSON like data_prep/extract/llm/prices.json "
                        f"({type(error).__name__})") from None
    numbers = (p for price in models.values() for p in (price.input, price.output, price.batch))
    if any(not math.isfinite(p) or p < 0 for p in numbers):
        raise UserError(f"the price table {path} holds a price that is not a number of at least 0")
    return models


def estimate_tokens(text: str) -> int:
    """About how many tokens a text has: six letters of a word, three digits or a sign each count as one.

    The error against a given tokeniser is about ESTIMATE_ERROR; the runner corrects it with what the server counted.
    """
    return len(_PIECE.findall(text))


def estimate_all(texts: Sequence[str]) -> int:
    """The sum of `estimate_tokens` over many texts, some times quicker: NumPy counts the runs of ASCII characters."""
    plain = [text for text in texts if text.isascii()]
    rest = sum(estimate_tokens(text) for text in texts if not text.isascii())
    # A space between two texts ends what runs to the end of the first.
    kinds = _kinds()[np.frombuffer(" ".join(plain).encode("ascii"), np.uint8)]
    starts = np.flatnonzero(np.diff(kinds, prepend=np.uint8(255)))
    lengths = np.diff(starts, append=len(kinds))
    # Of k characters in a row ceil(k / size) pieces; white space has none.
    return rest + sum(int(-(-lengths[kinds[starts] == kind] // size).sum()) for kind, size in enumerate(_SIZES, 1))


_SIZES = (6, 3, 3, 1)  # Longest piece of letters, of digits, of "_", of signs and line ends.


@functools.cache
def _kinds() -> np.ndarray:
    """For each ASCII character its position in _SIZES, from 1; 0 for white space. uint8 [128]."""
    patterns = [re.compile(pattern) for pattern in (r"[^\W\d_]", r"\d", r"_", r"[^\w\s]|\n")]
    return np.array([next((i for i, pattern in enumerate(patterns, 1) if pattern.fullmatch(chr(code))), 0)
                     for code in range(128)], np.uint8)


def fewest_tokens(text: str) -> int:
    """A bound that hardly a tokeniser falls below: one token for a word of Latin letters, a number or a run of signs.

    Tokenisers split there before they merge, but for a sign and the word that follows it. Other scripts count nothing.
    """
    return int(0.9 * len(_RUN.findall(text)))


def most_tokens(text: str) -> int:
    """A bound that no byte-level tokeniser exceeds: one token a byte, and some for the chat's own marks."""
    return len(text.encode("utf-8", "surrogatepass")) + 64
