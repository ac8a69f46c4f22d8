"""Data sets that a disk or a hand has changed: nothing wrong is used, and one line names the file and the record."""

import os
import shutil

import numpy as np
import pytest

from data_prep import verify
from data_prep.build import build
from data_prep.extract.evidence_table import EvidenceTable
from data_prep.shards import finish
from lgdea_jax import cli, train
from lgdea_jax.data.codec import encode_record
from lgdea_jax.data.dataset import INDEX_COLUMNS, load_index, load_metadata
from lgdea_jax.data.source import open_records
from lgdea_jax.data.sums import DamagedData
from lgdea_jax.errors import UserError
from lgdea_jax.eval import records
from lgdea_jax.io import decode_volume, encode_volume
from lgdea_jax.io.encoded_volume import DamagedVolume, volume_shape
from lgdea_jax.training.data import load_tokenizer
from tests.training import runs

MANY = pytest.mark.slow
SPLIT = "validation"


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """A data set of 3 volumes."""
    config = cli.read_config("configs/data/phantom_ct.py")
    config.phantom_ct.train, config.phantom_ct.validation, config.phantom_ct.test = 0, 3, 0
    config.workers, config.tokenizer.vocab_size = 1, 300
    folder = tmp_path_factory.mktemp("volumes") / "d"
    build(config, folder, progress=False)
    return folder


def change(path, rng):
    """Flips a bit, in one of four cases clears all from there on (the size stays), or cuts the file."""
    before = path.read_bytes()
    content, place, kind = bytearray(before), int(rng.integers(len(before))), rng.random()
    if kind < 0.75:
        content[place] ^= 1 << int(rng.integers(8))
    elif kind < 0.9:
        content[place:] = bytes(len(content) - place)
    else:
        del content[place:]
    path.unlink()  # It may be a link.
    path.write_bytes(content)


def images_of(folder):
    """Everything that readers get of a data set of images."""
    source = open_records(folder, SPLIT)
    fields = [(item.study, item.image, item.labels.tobytes()) for item in source.image_fields(range(len(source)))]
    return [encode_record(record) for record in source], fields


def volumes_of(folder):
    """The same of volumes: records around ArrayRecord, shapes, whole volumes, crops."""
    source, out = open_records(folder, SPLIT), []
    for index in range(len(source)):
        record, stored = source.parts(index)
        shape = volume_shape(stored)
        region = tuple(slice(n // 4, n // 2) for n in shape)
        out.append((encode_record(record), shape, decode_volume(stored).tobytes(),
                    decode_volume(stored, region).tobytes()))
    return out


@pytest.mark.parametrize("kind, times", [("images", 12), ("volumes", 12), pytest.param("images", 200, marks=MANY),
                                         pytest.param("volumes", 200, marks=MANY)])
def test_a_damaged_shard_is_never_used(kind, times, volumes, phantom_data, tmp_path):
    whole, read = (phantom_data, images_of) if kind == "images" else (volumes, volumes_of)
    expected, rng, refused = read(whole), np.random.default_rng(times), 0
    folder = tmp_path / "d"
    shutil.copytree(whole, folder)
    shard = folder / load_metadata(folder).shards[SPLIT][0].file
    before = shard.read_bytes()
    for _ in range(times):
        change(shard, rng)
        try:
            assert read(folder) == expected
        except (DamagedData, DamagedVolume) as error:
            refused += 1
            assert "\n" not in str(error) and shard.name in str(error)
        shard.write_bytes(before)
    print(f"\n{kind}: {refused} of {times} refused, the others without effect")
    assert refused >= times // 2


@pytest.mark.parametrize("times", [2, pytest.param(30, marks=MANY)])
def test_damaged_files_of_a_data_set_are_never_used(times, volumes, tmp_path):
    """Metadata, index, byte offsets, tokeniser, tables and SHA256SUMS itself."""
    folder = tmp_path / "d"
    shutil.copytree(volumes, folder)

    def read():
        metadata = load_metadata(folder)
        index = load_index(folder, SPLIT)
        open_records(folder, SPLIT)
        table = EvidenceTable(folder / "evidence.csv")
        return (metadata, [index[name].tobytes() for name in INDEX_COLUMNS], finish.read_rejected(folder),
                [table.cells(record.study_id) for record in open_records(folder, SPLIT)])

    expected, rng, counts = read(), np.random.default_rng(times), {}
    for name in ("dataset.json", f"index_{SPLIT}.npz", f"offsets_{SPLIT}.npy", "rejected.csv", "SHA256SUMS"):
        before = (folder / name).read_bytes()
        for _ in range(times):
            change(folder / name, rng)
            try:
                assert read() == expected
                assert name == "SHA256SUMS"  # A line of a file that is not read.
            except DamagedData as error:
                counts[name] = counts.get(name, 0) + 1
                assert "\n" not in str(error) and str(folder) in str(error)
            (folder / name).write_bytes(before)
    print(f"\n{times} times each, refused: {counts}")
    assert all(counts[name] == times for name in counts if name != "SHA256SUMS") and len(counts) >= 4


def test_a_damaged_tokeniser_or_table_of_evidence_is_refused(phantom_data, tmp_path):
    from data_prep import audit

    folder = tmp_path / "d"
    shutil.copytree(phantom_data, folder)
    config = cli.read_config("tests/training/tiny.py")
    config.data.dir = str(folder)
    for name, use in (("tokenizer.json", lambda: load_tokenizer(config, [str(folder)], [load_metadata(folder)])),
                      ("evidence.csv", lambda: audit.main([f"--data_dir={folder}", f"--html={tmp_path / 'a.html'}"]))):
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(before[:-3] + bytes([before[-3] ^ 1]) + before[-2:])
        with pytest.raises(DamagedData, match=name):
            use()
        (folder / name).write_bytes(before)


def test_any_flip_in_a_stored_volume_is_found():
    rng = np.random.default_rng(0)
    volume = rng.integers(-1000, 1000, (70, 50, 40)).astype(np.int16)
    volume[:, :20] = -1024
    stored = encode_volume(volume)
    for place in rng.integers(len(stored), size=150).tolist():
        content = stored[:place] + bytes([stored[place] ^ 1 << int(rng.integers(8))]) + stored[place + 1:]
        with pytest.raises(DamagedVolume, match="not a stored volume"):
            decode_volume(content)
    with pytest.raises(DamagedVolume, match="no checksums"):
        decode_volume(stored[:-8] + b"LGDEACRX")


def test_verify_names_files_and_records(phantom_data, volumes, tmp_path, capsys):
    for whole in (phantom_data, volumes):
        assert verify.main([str(whole)]) == cli.OK
        assert "all as they were written" in capsys.readouterr().out
    folder = tmp_path / "d"
    shutil.copytree(phantom_data, folder)
    shard = folder / load_metadata(folder).shards["train"][1].file
    records = [open_records(folder, "train").read_bytes(20 + row) for row in (4, 5, 9)]
    content = bytearray(shard.read_bytes())
    for data in records:
        place = content.find(data[:200]) + 100
        assert place > 100
        content[place] ^= 16
    shard.write_bytes(content)
    (folder / "index_test.npz").write_bytes(b"x")
    (folder / "LICENSE").unlink()
    with pytest.raises(UserError, match=r"3 of \d+ files of .* are damaged or missing: copy the data set again"):
        verify.main([str(folder)])
    lines = capsys.readouterr().out.splitlines()
    assert f"{shard}: damaged; records that cannot be read, from 0: 4-5, 9 (of 20)" in lines and len(lines) == 3
    assert f"{folder / 'index_test.npz'}: damaged" in lines
    assert f"{folder / 'LICENSE'}: missing or not readable (FileNotFoundError)" in lines
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(UserError):
        verify.main([str(folder)])
    assert "bytes instead of" in capsys.readouterr().out
    with pytest.raises(UserError, match="no data set at"):
        verify.main([str(tmp_path)])


def test_a_training_and_an_evaluation_check_whole_data_sets_first(phantom_data, compile_cache, tmp_path, capsys):
    files = [phantom_data / line.split("  ")[1] for line in (phantom_data / "SHA256SUMS").read_text().splitlines()]
    line = f"verified: {len(files)} files, {sum(map(os.path.getsize, files)) / 1e9:.3f} GB, of {phantom_data}, in 0:0"

    def evaluate(data):
        return records.main(["--checkpoint=nowhere", f"--data_dir={data}", f"--out={tmp_path / 'out'}", "--verify"])

    def training(data, *flags):
        return train.main([*runs.flags_of(tmp_path / "run", data, "total_steps=1", *flags,
                                          config="tests/training/tiny.py:clip", cache=compile_cache), "--verify"])

    with pytest.raises(UserError, match="unknown split"):  # What comes next.
        training(phantom_data, f"eval.dir={phantom_data}", "data.split=nothing")
    assert line in capsys.readouterr().err
    with pytest.raises(UserError, match="nowhere"):
        evaluate(phantom_data)
    assert line in capsys.readouterr().err
    other = tmp_path / "other"
    shutil.copytree(phantom_data, other)
    shard = other / load_metadata(other).shards["test"][0].file  # A split that neither of them reads.
    shard.write_bytes(shard.read_bytes()[:-9])
    for run in (lambda: training(other), lambda: training(phantom_data, f"data.held_out_from={other}"),
                lambda: training(phantom_data, f"eval.dir={other}"),
                lambda: training(phantom_data, f"data.images_from={other}:2"), lambda: evaluate(other)):
        with pytest.raises(DamagedData, match=rf"{shard}: damaged, \d+ bytes instead of .*data_prep\.verify"):
            run()
    (other / "LICENSE").unlink()
    with pytest.raises(DamagedData, match=r"\(and 1 more\)"):
        evaluate(other)
    assert "verified" not in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [("data.cache=False", "data.threads=2"), ("data.cache=True",),
                                   pytest.param(("data.cache=False", "data.workers=1"), marks=MANY)])
def test_a_training_names_the_damaged_record(flags, phantom_data, compile_cache, tmp_path):
    folder = tmp_path / "d"
    shutil.copytree(phantom_data, folder)
    shard = folder / load_metadata(folder).shards["train"][0].file
    content = bytearray(shard.read_bytes())
    content[content.find(open_records(folder, "train").read_bytes(3)[:200]) + 50] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=rf"record 3 of .*{shard.name} is damaged .*data_prep.verify") as caught:
        runs.here(tmp_path / "run", folder, "total_steps=8", *flags, config="tests/training/tiny.py:clip",
                  cache=compile_cache)
    assert "\n" not in str(caught.value)
