"""Embeddings of data sets and files: those of the model, in parts that a stopped run keeps, without identifiers."""

import json

import numpy as np
import pytest
from PIL import Image

from lgdea_jax import cli, embed
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from lgdea_jax.inference import embeddings
from lgdea_jax.inference.model import load
from lgdea_jax.io import decode_image
from tests.inference.test_model_folder import exported, run  # noqa: F401 (fixtures)


@pytest.fixture(scope="module")
def pictures(phantom_data, tmp_path_factory):
    """The images of the test split as files, in the order of the records, and a table of them."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "images").mkdir()
    names = []
    for number, record in enumerate(open_records(phantom_data, "test")):
        names.append(f"images/{number}.png")
        Image.fromarray(decode_image(record.image, record.image_format)).save(folder / names[-1])
    (folder / "studies.csv").write_text("study_id;image;report\n" + "".join(
        f"s{number};{name.replace('/', chr(92))};text\n" for number, name in enumerate([*names, names[0]])))
    return folder, names


@pytest.fixture(scope="module")
def expected(exported, pictures):  # noqa: F811
    """Of the model, file by file."""
    return load(exported).embeddings([pictures[0] / name for name in pictures[1]])


def test_of_a_data_set_in_parts(exported, phantom_data, pictures, expected, tmp_path, monkeypatch):  # noqa: F811
    words = [f"--checkpoint={exported}", f"--data_dir={phantom_data}", "--split=test", f"--out={tmp_path}",
             "--part_rows=3", "--batch_size=2"]
    assert embed.main(words) == cli.OK
    found = embeddings.read(tmp_path)
    np.testing.assert_allclose(found["image"], expected, atol=2e-6)
    assert found["record"].tolist() == list(range(8)) and found["image"].dtype == np.float32
    assert [len(part["image"]) for part in embeddings.read_parts(tmp_path)] == [3, 3, 2]
    about = json.loads((tmp_path / "about.json").read_text())
    assert (about["rows"], about["width"], about["parts"]) == (8, expected.shape[1], 3)
    ids = {value for record in open_records(phantom_data, "test") for value in (record.study_id, record.subject_id)}
    for file in tmp_path.iterdir():
        assert not [value for value in ids if value.encode() in file.read_bytes()]

    # A run that was stopped before its second part was whole makes that one only.
    (tmp_path / "part-00001.npz").unlink()
    (tmp_path / "about.json").unlink()
    with pytest.raises(UserError, match="no finished embeddings in"):
        embeddings.read(tmp_path)
    made = []
    of_split = embeddings.of_split

    def counted(*args):
        count, function = of_split(*args)
        return count, lambda start, end: (made.append(start), function(start, end))[1]

    monkeypatch.setattr(embeddings, "of_split", counted)
    assert embed.main(words) == cli.OK and made == [3]
    np.testing.assert_array_equal(embeddings.read(tmp_path)["record"], np.arange(8))
    with pytest.raises(UserError, match="embeddings of another model or of other images: give another --out"):
        embed.main([word.replace("=test", "=validation") for word in words])


def test_of_files_and_of_a_table(exported, pictures, expected, tmp_path, capsys):  # noqa: F811
    folder, names = pictures
    assert embed.main([f"--checkpoint={exported}", f"--table={folder / 'studies.csv'}",
                       f"--out={tmp_path / 'table'}"]) == cli.OK
    found = embeddings.read(tmp_path / "table")
    assert found["name"].tolist() == names
    np.testing.assert_allclose(found["image"], expected, atol=2e-6)
    (tmp_path / "broken.png").write_bytes(b"nothing")
    out = tmp_path / "files"
    assert embed.main([f"--checkpoint={exported}", str(folder / names[1]), str(tmp_path / "broken.png"),
                       f"--out={out}"]) == cli.PARTIAL
    np.testing.assert_allclose(embeddings.read(out)["image"], expected[1:2], atol=2e-6)
    assert "broken.png" in (out / "rejected.csv").read_text() and "1 rejected" in capsys.readouterr().out


@pytest.mark.parametrize("words,message", [
    ([], "give one of --data_dir=DATA, --table=FILE, or IMAGE"), (["a.png", "--table=t.csv"], "give one of"),
    (["--table=nowhere.csv"], "cannot read the table nowhere.csv"), (["a.png", "--part_rows=0"], "at least 1"),
    (["a.png", "--spacing=1,1,1"], "--spacing is for CT volumes"), (["a.png", "--axes=IPL"], "--axes is for CT")])
def test_wrong_use(exported, words, message, tmp_path):  # noqa: F811
    with pytest.raises(UserError, match=message):
        embed.main([f"--checkpoint={exported}", f"--out={tmp_path}", *words])
