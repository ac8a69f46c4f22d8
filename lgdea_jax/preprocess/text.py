"""Text to token ids: a WordPiece tokeniser trained on the corpus, or any Hugging Face tokeniser from a directory.

Nothing is downloaded: a tokeniser is a `tokenizer.json` file (`tokenizers` library) or a local directory that
`transformers` can read. The tokeniser travels inside the data set and inside every checkpoint as text.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from lgdea_jax.errors import UserError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class TextTokenizer:
    """Encodes text to fixed-length int32 rows. Picklable; cheap to copy to worker processes.

    Attributes:
      vocab_size: one more than the largest token id.
      pad_token, pad_id: the token that fills the rest of a row, and its id.
      digest: SHA-256 (hex) of the serialised tokeniser: equal digests mean equal encodings.
    """

    def __init__(self, serialised: str) -> None:
        from tokenizers import Tokenizer

        self.serialised = serialised
        self._tokenizer = Tokenizer.from_str(serialised)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        # Not the number of tokens: some tokenisers leave ids out.
        self.vocab_size = 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values())
        pads = [token for token in ("[PAD]", "<pad>") if self._tokenizer.token_to_id(token) is not None]
        if not pads:
            raise UserError("the tokeniser has no padding token ([PAD] or <pad>)")
        self.pad_token = pads[0]
        self.pad_id = self._tokenizer.token_to_id(self.pad_token)
        self.digest = hashlib.sha256(serialised.encode()).hexdigest()

    def __reduce__(self) -> tuple:
        return TextTokenizer, (self.serialised,)

    @classmethod
    def load(cls, path: str | Path) -> TextTokenizer:
        """Reads a `tokenizer.json`, or a local Hugging Face directory.

        Raises:
          UserError: there is none at `path`, or it cannot be read.
        """
        path = Path(path)
        if path.is_dir() and (path / "tokenizer.json").is_file():
            path = path / "tokenizer.json"
        try:
            if path.is_file():
                return cls(path.read_text(encoding="utf-8"))
            if path.is_dir():
                from transformers import AutoTokenizer

                fast = AutoTokenizer.from_pretrained(path, local_files_only=True, use_fast=True)
                return cls(fast.backend_tokenizer.to_str())
        except UserError:
            raise
        except Exception as error:  # The `tokenizers` library raises bare `Exception`s.
            raise UserError(f"cannot read the tokeniser at {path}: {error}") from None
        raise UserError(f"no tokeniser at {path}: a tokenizer.json or a Hugging Face directory is needed")

    def save(self, path: str | Path) -> None:
        """Writes the tokeniser as `tokenizer.json` text to the file `path`."""
        Path(path).write_text(self.serialised, encoding="utf-8")

    def encode(self, texts: Sequence[str], max_length: int) -> np.ndarray:
        """Token ids with the tokeniser's own special tokens, cut and padded to `max_length`.

        Args:
          texts: N strings. Only the first `max_length` tokens count; the last kept one is the closing token.
          max_length: length of a row, at least 2.

        Returns:
          int32 [N, max_length]; `pad_id` fills each row's rest.
        """
        if max_length < 2:
            raise ValueError(f"max_length={max_length}: at least 2, for the opening and the closing token")
        rows = np.full((len(texts), max_length), self.pad_id, np.int32)
        for row, encoding in zip(rows, self._tokenizer.encode_batch(list(texts)), strict=True):
            ids = encoding.ids
            if len(ids) > max_length:
                ids = ids[: max_length - 1] + ids[-1:]
            row[: len(ids)] = ids
        return rows

    def losses(self, text: str, max_length: int) -> tuple[str, tuple[str, ...]]:
        """What a row of `encode` does not carry of `text`.

        Returns:
          (the part of the text that is cut off, "" for none; words that it has no token for, or letters only).
        """
        encoding = self._tokenizer.encode(text)
        words: dict[int, list[int]] = {}
        for place, word in enumerate(encoding.word_ids):
            if word is not None:
                words.setdefault(word, []).append(place)
        unknown: dict[str, None] = {}
        for places in words.values():
            word = text[encoding.offsets[places[0]][0]:encoding.offsets[places[-1]][1]]
            tokens = [encoding.tokens[place] for place in places]
            letters = len(word) > 2 and len(tokens) >= len(word) and word.isalpha()
            if letters or any(token in ("[UNK]", "<unk>") for token in tokens):
                unknown[word] = None
        cut = ""
        if len(encoding.ids) > max_length:  # As `encode` cuts: the last place is the closing token's.
            cut = text[encoding.offsets[max_length - 1][0]:]
        return cut, tuple(unknown)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids` without special tokens."""
        return self._tokenizer.decode([int(i) for i in ids if i != self.pad_id])


def train_tokenizer(texts: Iterable[tuple[str, str]], vocab_size: int, *, subjects: int = 5) -> TextTokenizer:
    """Trains a lower-casing WordPiece tokeniser with [CLS] text [SEP].

    The vocabulary is every character, then whole words by frequency; a quarter of the room is left for the commonest
    beginnings and endings of the words that did not fit. The library's own WordPiece trainer breaks ties by hash order,
    so that two runs on equal input give different vocabularies; here ties break by the alphabet.

    Every checkpoint and export carries the vocabulary, in plain text. A word or a piece of the reports of few subjects
    may be a name or a number of theirs, and stays out. What is in the reports of many (the name of somebody who signs
    them) does not.

    Args:
      texts: (subject, text) of the training split's reports (never the evaluation splits').
      vocab_size: upper bound on the vocabulary, special tokens included.
      subjects: how many different subjects' texts must contain a word or a piece of several characters.

    Returns:
      The tokeniser; equal input gives an equal one.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    owners: dict[str, set[str]] = {}  # Of words and of pieces; no more than `subjects` of each are kept.
    for subject, text in texts:
        found = Counter(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
        words.update(found)
        for word in found:
            if len(known := owners.setdefault(word, set())) < subjects:
                known.add(subject)
    characters = sorted({character for word in words for character in word})
    vocabulary = dict.fromkeys([*SPECIAL_TOKENS, *characters, *(f"##{character}" for character in characters)])
    if len(vocabulary) > vocab_size:
        raise UserError(f"a vocabulary of {vocab_size} is too small: the characters alone need {len(vocabulary)}")

    def commonest(counts: Counter[str], room: int) -> list[str]:
        ranked = sorted((-count, token) for token, count in counts.items()
                        if len(owners[token]) >= subjects and token not in vocabulary)
        return [token for _, token in ranked[:room]]

    room = vocab_size - len(vocabulary)
    vocabulary.update(dict.fromkeys(commonest(words, room - room // 4)))
    pieces: Counter[str] = Counter()
    for word, count in words.items():
        if word not in vocabulary:
            for cut in range(2, min(len(word), 9)):
                for piece in (word[:cut], f"##{word[-cut:]}"):
                    pieces[piece] += count
                    if len(known := owners.setdefault(piece, set())) < subjects:
                        known.update(owners[word])
    vocabulary.update(dict.fromkeys(commonest(pieces, vocab_size - len(vocabulary))))
    vocabulary.update(dict.fromkeys(commonest(words, vocab_size - len(vocabulary))))

    ids = {token: index for index, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=64))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])])
    return TextTokenizer(tokenizer.to_str())
