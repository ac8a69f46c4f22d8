"""A build of a table of volumes of which most cannot be used: nothing stops it, and each row has its reason."""

import csv
import sys

import pytest

from lgdea_jax.data.source import open_records
from tests.data_prep.shards.run import build as run_build
from tests.fixtures import bad_volumes, ct, world
from tests.io.volumes.writers import SPACING, chest


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and links")
def test_bad_volumes_among_good_ones(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    bad = bad_volumes.write(folder)
    names = list(bad)
    for number in range(3):
        ct.write_nifti(folder / f"good{number}.nii.gz", chest(seed=number), SPACING)
        names.insert(5 * number, f"good{number}.nii.gz")
    world.table(folder / "studies.csv", [
        {"study_id": f"s{number}", "subject_id": f"p{number}", "split": "train", "image": name, "report": "",
         "label:Nodule": "1"} for number, name in enumerate(names)])
    process = run_build("--config=configs/data/table_ct.py", f"--config.table.path={folder}",
                        f"--out={tmp_path / 'out'}", "--config.workers=1", "--config.volume.geometry=phantom_ct")
    assert process.returncode == 3, process.stderr
    assert "Traceback" not in process.stderr and "Warning" not in process.stderr
    assert len(open_records(tmp_path / "out", "train")) == 3
    with open(tmp_path / "out/rejected.csv", encoding="utf-8", newline="") as file:
        reasons = {row["study_id"]: row["reason"] for row in csv.DictReader(file)}
    assert len(reasons) == len(bad)
    for number, name in enumerate(names):
        assert name not in bad or bad[name] in reasons[f"s{number}"], (name, reasons[f"s{number}"])
