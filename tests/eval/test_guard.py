"""No checkpoint is measured on subjects that it was trained on, unless somebody says so."""

import numpy as np
import pytest

from lgdea_jax.data.dataset import load_index, load_metadata
from lgdea_jax.errors import UserError
from lgdea_jax.eval.harness import guard


def _spec(folder, **config):
    return {"config": {"data": {"dir": str(folder), "split": "train"}, **config},
            "data": {"names": [load_metadata(folder).name]}}


def test_a_split_of_its_own_is_fine(phantom_data):
    found = guard.check(_spec(phantom_data), phantom_data, "test", np.arange(8))
    assert found == {"checked": True, "trained_on": ["phantom"], "subjects_in_common": 0, "note": ""}


def test_training_subjects_are_refused_or_recorded(phantom_data):
    subjects = load_index(phantom_data, "train")["subject"]
    with pytest.raises(UserError, match=rf"{len(set(subjects))} subjects .* in the training data"):
        guard.check(_spec(phantom_data), phantom_data, "train", np.arange(40))
    with pytest.raises(UserError, match=f"{len(set(subjects[[5, 1, 9]]))} subjects"):
        guard.check(_spec(phantom_data), phantom_data, "train", np.array([5, 1, 9]))
    found = guard.check(_spec(phantom_data), phantom_data, "train", np.arange(40), allow=True)
    assert found["checked"] and found["subjects_in_common"] == len(set(subjects))


def test_training_data_that_are_not_there_stop_the_evaluation(phantom_data, tmp_path):
    spec = _spec(phantom_data)
    spec["config"]["data"]["dir"] = str(tmp_path / "moved")
    with pytest.raises(UserError, match="--trained_on=DIR"):
        guard.check(spec, phantom_data, "test", np.arange(8))
    assert guard.check(spec, phantom_data, "test", np.arange(8), trained_on=[str(phantom_data)])["checked"]
    found = guard.check(spec, phantom_data, "test", np.arange(8), allow=True)
    assert not found["checked"] and found["subjects_in_common"] is None and "no data set" in found["note"]
    spec["data"]["names"] = ["other"]
    with pytest.raises(UserError, match="trained on other, not on phantom"):
        guard.check(spec, phantom_data, "test", np.arange(8), trained_on=[str(phantom_data)])
    with pytest.raises(UserError, match="names no training data"):
        guard.check({"config": {}}, phantom_data, "test", np.arange(8))


def test_a_start_from_another_run_is_mentioned(phantom_data):
    found = guard.check(_spec(phantom_data, init_from="runs/first,runs/second"), phantom_data, "test", np.arange(8))
    assert "the training data of runs/first and runs/second" in found["note"]


def test_every_folder_that_a_config_names():
    data = {"dir": "", "pairs_from": ("a", "b:2"), "images_from": ("c:0.5", "a"), "reports_from": ()}
    assert guard.training_folders(data) == ["a", "b", "c"]
    assert guard.training_folders({"dir": "d"}) == ["d"]
