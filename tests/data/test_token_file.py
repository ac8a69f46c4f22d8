"""Tokens that are kept: the same batches as when they are made each time; made once; a stale file is never read."""

import dataclasses
import pickle

import numpy as np
import pytest

from lgdea_jax.data import dataset
from lgdea_jax.data.batch import BatchSchema
from lgdea_jax.data.pipeline import Items
from lgdea_jax.data.token_file import TokenFile
from lgdea_jax.errors import UserError
from lgdea_jax.preprocess.text import TextTokenizer, train_tokenizer
from lgdea_jax.preprocess.text_view import TextView
from tests.data.make import write_sums

VIEW = TextView(kind="phrases", length=8, phrases=3, uncertain_weight=0.5, variants=("verbatim", "canonical"))


@pytest.fixture(scope="module")
def tokenizer(phantom_data):
    return TextTokenizer.load(phantom_data / "tokenizer.json")


@pytest.fixture
def data(phantom_data, tmp_path):
    """A copy of the data set, by links."""
    for file in phantom_data.iterdir():
        if file.is_file():
            (tmp_path / file.name).symlink_to(file)
    return tmp_path


def made(*args):
    tokens, rows = TokenFile(*args), []
    tokens.make(lambda: rows.append(1))
    assert len(rows) == len(tokens)
    return tokens


@pytest.mark.parametrize("kind", ["phrases", "evidence", "report"])
@pytest.mark.parametrize(("stream", "hidden", "images"), [
    ("pairs", False, True), ("pairs", False, False), ("images", True, True), ("images", False, True),
    ("reports", False, True)])
def test_items_are_those_without_the_file(data, tokenizer, kind, stream, hidden, images):
    view = dataclasses.replace(VIEW, kind=kind)
    if hidden and kind != "phrases":
        pytest.skip("hidden reports are read as phrases")
    names, rows = dataset.load_metadata(data).label_names, np.array([9, 2, 17, 3])
    kept = made(str(data), "train", view, tokenizer)
    plain, mapped = (Items(
        str(data), "train", rows, stream=stream, schema=BatchSchema(32, view, len(names), hidden, images), cache=False,
        tokenizer=tokenizer, label_names=names, tokens=tokens) for tokens in (None, pickle.loads(pickle.dumps(kept))))
    indices = np.array([3, 0, 1, 1])
    expected, found = plain.read(indices), mapped.read(indices)
    assert found.keys() == expected.keys() == plain.fields.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert (found.get("tokens", np.ones(1)) != tokenizer.pad_id).any()


def test_whatever_decides_the_tokens_gets_a_file_of_its_own(data, tokenizer):
    other = train_tokenizer([(str(n), "small pleural effusion") for n in range(9)], 60)
    views = [VIEW, dataclasses.replace(VIEW, length=9), dataclasses.replace(VIEW, uncertain_weight=0.25),
             dataclasses.replace(VIEW, variants=("canonical",))]
    paths = {TokenFile(str(data), "train", view, some).path for view in views for some in (tokenizer, other)}
    paths.add(TokenFile(str(data), "test", VIEW, tokenizer).path)
    text = (data / "dataset.json").read_text()
    digest = dataset.load_metadata(data).shards["train"][0].sha256
    (data / "dataset.json").unlink()
    (data / "dataset.json").write_text(text.replace(digest, digest[::-1]))
    write_sums(data)
    paths.add(TokenFile(str(data), "train", VIEW, tokenizer).path)
    assert len(paths) == 10 and {path.parent for path in paths} == {data / "tokens"}


def test_a_damaged_file_and_a_folder_that_cannot_be_written_are_one_line(data, tokenizer):
    tokens = made(str(data), "train", VIEW, tokenizer)
    whole = tokens.path.read_bytes()
    tokens.path.write_bytes(whole[:-5])
    with pytest.raises(UserError, match=r"damaged .*delete it"):
        TokenFile(str(data), "train", VIEW, tokenizer).read(np.array([0]))
    for place in (len(whole) // 2, len(whole) - 40, len(whole) - 1):  # Its rows, and the checksum behind them.
        changed = bytearray(whole)
        changed[place] ^= 1
        tokens.path.write_bytes(changed)
        with pytest.raises(UserError, match="its checksum differs"):
            TokenFile(str(data), "train", VIEW, tokenizer).read(np.array([0]))
    np.save(tokens.path, np.zeros(3))
    with pytest.raises(UserError, match="another shape"):
        TokenFile(str(data), "train", VIEW, tokenizer).read(np.array([0]))
    tokens.path.unlink()
    tokens.path.parent.rmdir()
    tokens.path.parent.write_text("")
    with pytest.raises(UserError, match="keep_tokens=False"):
        tokens.make(lambda: None)
