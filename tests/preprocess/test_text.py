"""Tokenisers: fixed rows, exact round trips, equal input equal vocabulary, Hugging Face folders; evidence as text."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lgdea_jax.errors import UserError
from lgdea_jax.preprocess.evidence_text import canonical_phrase, usable_evidence
from lgdea_jax.preprocess.text import SPECIAL_TOKENS, TextTokenizer, train_tokenizer
from lgdea_jax.records import CERTAINTIES, LATERALITIES, TEMPORALITIES, Evidence

WORDS = ("small", "left", "pleural", "effusion", "no", "pneumothorax", "heart", "is", "enlarged", "lungs", "clear")
TEXTS = [" ".join(np.random.default_rng(i).choice(WORDS, 8)) + "." for i in range(60)]


def of_subjects(texts):
    """Each text of a subject of its own."""
    return [(f"subject {number}", text) for number, text in enumerate(texts)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(of_subjects(TEXTS), 120)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), max_size=4), st.integers(2, 16))
def test_rows_are_fixed_and_end_with_the_closing_token(tokenizer, texts, length):
    rows = tokenizer.encode(texts, length)
    assert rows.shape == (len(texts), length) and rows.dtype == np.int32
    for text, row in zip(texts, rows, strict=True):
        kept = row[row != tokenizer.pad_id]
        assert (row[len(kept):] == tokenizer.pad_id).all()  # Padding is at the end only.
        assert tokenizer.decode(kept[:1]) == "" and tokenizer.decode(kept[-1:]) == ""  # [CLS] and [SEP].
        words = text.split()
        assert tokenizer.decode(row).split() == words[: length - 2]


@given(st.text(max_size=60))
def test_any_text_is_encoded(tokenizer, text):
    row = tokenizer.encode([text], 12)[0]
    assert ((row >= 0) & (row < tokenizer.vocab_size)).all() and (row != tokenizer.pad_id).sum() >= 2


@given(st.lists(st.text("abcdefghij ", max_size=30), min_size=1, max_size=8), st.randoms())
def test_equal_corpora_give_equal_tokenisers(texts, random):
    shuffled = list(texts)
    random.shuffle(shuffled)
    one, other = (train_tokenizer(of_subjects(some), 64, subjects=2) for some in (texts, shuffled))
    assert one.serialised == other.serialised


def test_vocabulary(tokenizer):
    vocabulary = json.loads(tokenizer.serialised)["model"]["vocab"]
    assert len(vocabulary) == tokenizer.vocab_size <= 120
    assert [vocabulary[token] for token in SPECIAL_TOKENS] == [0, 1, 2, 3, 4] and tokenizer.pad_id == 0
    assert all(word in vocabulary for word in WORDS)
    upper = tokenizer.encode(["Small LEFT Effusion"], 8)
    np.testing.assert_array_equal(upper, tokenizer.encode(["small left effusion"], 8))
    with pytest.raises(UserError, match="vocabulary of 10 is too small"):
        train_tokenizer(of_subjects(TEXTS), 10)


def test_words_of_few_subjects_are_no_tokens():
    """However often they occur, whole or in pieces of several characters: a tokeniser stands in every checkpoint."""
    texts = [("1", "Brzezinska effusion 4711234")] * 9 + [(str(n), "Brzezinska effusion 4711234") for n in (2, 3, 4)]
    texts += [(str(n), "small effusion") for n in range(5, 9)]
    texts += [(str(n), word) for n in range(4) for word in ("unmoved", "unclear")]  # Their "un" is of four subjects.
    found = set(json.loads(train_tokenizer(texts, 500).serialised)["model"]["vocab"])
    long = {token for token in found if len(token.removeprefix("##")) > 1 and token not in SPECIAL_TOKENS}
    assert long == {"effusion"}
    four = set(json.loads(train_tokenizer(texts, 500, subjects=4).serialised)["model"]["vocab"])
    assert {"small", "brzezinska", "4711234", "unclear", "effusion"} <= four
    few = [(str(n), f"{a} {b}") for n, (a, b) in enumerate([("cardiac", "cardial"), ("cardiol", "cardiox"),
                                                           ("cardioy", "x"), ("cardioz", "x"), ("cardiov", "x")])]
    pieces = set(json.loads(train_tokenizer(few, 500).serialised)["model"]["vocab"])
    assert "cardi" in pieces and "cardio" not in pieces  # Five subjects begin a word with the one, four with the other.


def test_saved_loaded_and_pickled_it_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    for other in (TextTokenizer.load(tmp_path / "tokenizer.json"), TextTokenizer.load(tmp_path),
                  pickle.loads(pickle.dumps(tokenizer))):
        assert (other.digest, other.vocab_size) == (tokenizer.digest, tokenizer.vocab_size)
        np.testing.assert_array_equal(other.encode(TEXTS, 12), tokenizer.encode(TEXTS, 12))


@pytest.mark.slow
def test_a_hugging_face_folder_gives_the_ids_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    vocabulary = [*SPECIAL_TOKENS, *WORDS, "##s", ".", "en", "##larged"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    ours = TextTokenizer.load(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    expected = theirs(TEXTS, padding="max_length", truncation=True, max_length=8, return_tensors="np")["input_ids"]
    np.testing.assert_array_equal(ours.encode(TEXTS, 8), expected)


def test_ids_with_holes_fit_the_embedding(tokenizer):
    parts = json.loads(tokenizer.serialised)
    parts["model"]["vocab"]["zebra"] = 500
    other = TextTokenizer(json.dumps(parts))
    assert other.vocab_size == 501 and other.encode(["zebra"], 4).max() == 500


def test_what_is_no_tokeniser(tokenizer, tmp_path):
    with pytest.raises(UserError, match="no tokeniser at"):
        TextTokenizer.load(tmp_path / "none")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match="cannot read the tokeniser"):
        TextTokenizer.load(tmp_path / "broken.json")
    unpadded = tokenizer.serialised.replace("[PAD]", "[NOT]")
    with pytest.raises(UserError, match="no padding token"):
        TextTokenizer(unpadded)
    with pytest.raises(ValueError, match="at least 2"):
        tokenizer.encode(["x"], 1)


items = st.builds(Evidence, st.sampled_from(["Nodule", "Edema"]), st.sampled_from(["", "apex"]),
                  st.sampled_from(LATERALITIES), st.just(""), st.sampled_from(CERTAINTIES),
                  st.sampled_from(TEMPORALITIES), st.text(max_size=3), st.just(0), st.just(0))


@given(st.lists(items, max_size=10), st.integers(0, 6))
def test_usable_evidence(evidence, limit):
    chosen = usable_evidence(evidence, limit=limit)
    assert len(chosen) <= limit and all(item in evidence for item in chosen)
    assert all(item.certainty != "absent" and item.temporality != "historical" for item in chosen)
    certainties = [item.certainty for item in chosen]
    assert certainties == sorted(certainties)  # "present" before "uncertain".
    keys = [(item.finding, item.laterality, item.anatomy) for item in chosen]
    assert len(set(keys)) == len(keys)
    everything = {(i.finding, i.laterality, i.anatomy) for i in evidence
                  if i.certainty != "absent" and i.temporality != "historical"}
    assert len(chosen) == min(limit, len(everything))
    # A finding that is stated and hedged is stated.
    for item in chosen:
        if item.certainty == "uncertain":
            key = (item.finding, item.laterality, item.anatomy)
            assert not any((o.finding, o.laterality, o.anatomy) == key and o.certainty == "present"
                           and o.temporality != "historical" for o in evidence)


def test_canonical_phrases():
    item = Evidence("Atelectasis", "lower lobe", "left", "mild", "present", "", "words", 0, 5)
    assert canonical_phrase(item) == "mild left lower lobe atelectasis"
    assert canonical_phrase(Evidence("Edema", "", "", "", "present", "", "x", 0, 1)) == "edema"
