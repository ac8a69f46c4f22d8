"""The command data_prep.beam: the data set of data_prep.build, made in a pipeline."""

import json

import nibabel
import numpy as np
import pytest

from data_prep import beam, build
from lgdea_jax import cli
from lgdea_jax.errors import UserError
from tests.data_prep.shards import tables
from tests.data_prep.shards.run import PHANTOM, files

SMALL = (*PHANTOM, "--config.phantom.train=12", "--config.workers=1")


def test_the_pipeline_builds_the_same_data_set(tmp_path):
    assert beam.main([*SMALL, f"--out={tmp_path / 'beam'}", "--", "--direct_num_workers=1"]) == cli.OK
    assert build.main([*SMALL, f"--out={tmp_path / 'local'}"]) == cli.OK
    one, two = files(tmp_path / "beam"), files(tmp_path / "local")
    assert {name for name in one if one[name] != two[name]} <= {"dataset.json", "SHA256SUMS"}
    command = json.loads((tmp_path / "beam/dataset.json").read_text())["command"]
    assert command.startswith("python -m data_prep.build ") and "--runner=beam -- --direct_num_workers=1" in command


def test_the_pipeline_resamples_and_encodes_volumes_and_goes_on_from_finished_shards(tmp_path):
    """A table of NIfTI files, stopped after some of its shards."""
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    chest = np.full((8, 24, 20), -1000, np.int16)
    chest[:, 4:-4, 4:-4] = 40
    (tmp_path / "in").mkdir()
    rows = []
    for i in range(5):
        nibabel.save(nibabel.Nifti1Image(np.roll(chest, i).transpose(2, 1, 0), affine), tmp_path / f"in/{i}.nii.gz")
        rows.append(tables.row(f"s{i}", image=f"{i}.nii.gz", report=tables.REPORT))
    rows.append(tables.row("s5", image="none.nii.gz"))
    path = tables.write(tmp_path / "in", rows)
    options = ["--config=configs/data/table_ct.py", f"--config.table.path={path}", "--config.workers=1",
               "--config.volume.geometry=fvlm_centre", "--config.shard_studies=1", "--config.tokenizer.vocab_size=300"]
    assert build.main([*options, f"--out={tmp_path / 'local'}"]) == cli.PARTIAL
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data_prep.shards.finish.finish", lambda *args: (_ for _ in ()).throw(UserError("stopped")))
        with pytest.raises(UserError, match="stopped"):
            beam.main([*options, f"--out={tmp_path / 'beam'}"])
    shards = sorted((tmp_path / "beam").glob("*.array_record-*"))
    times = {shard: shard.stat().st_mtime_ns for shard in shards[1:]}
    assert len(shards) == 6
    shards[0].unlink()
    assert beam.main([*options, f"--out={tmp_path / 'beam'}"]) == cli.PARTIAL
    assert {shard: shard.stat().st_mtime_ns for shard in times} == times
    one, two = files(tmp_path / "beam"), files(tmp_path / "local")
    assert {name for name in one if one[name] != two[name]} <= {"dataset.json", "SHA256SUMS"} and len(one) == len(two)


def test_wrong_use(tmp_path):
    with pytest.raises(UserError, match="--config=FILE is needed"):
        beam.main([])
    with pytest.raises(UserError, match="did you mean '--out'"):
        beam.main([*SMALL, "--oot=x"])
