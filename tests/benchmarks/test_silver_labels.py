"""The silver-label experiment: keys of runs, their commands, and the table of known rows."""

import json

import numpy as np
import pytest

from benchmarks.experiments import silver_labels as sl
from lgdea_jax import cli
from lgdea_jax.data import dataset, source
from lgdea_jax.errors import UserError
from lgdea_jax.findings.label_sets import label_columns

MEANS = {"scratch": 0.62, "scratch_long": 0.64, "reference": 0.80, "silver": 0.795, "weak": 0.66}


def rows(means=MEANS, seeds=5, spread=0.005, subjects="same"):
    """Finished runs whose metrics are known, with replicates of 400 resamples that the arms share."""
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 0.008, 400)
    out = []
    for arm, mean in means.items():
        for seed in range(seeds):
            value = mean + spread * rng.normal()
            out.append({
                "key": f"{arm}{seed}", "arm": arm, "seed": seed, "steps": [2, 2], "split": "test", "subjects": subjects,
                "seconds": {"clip": 50.0 + seed, "evaluate": 5.0}, "resumed": False,
                "metrics": dict.fromkeys(sl.METRICS, value),
                "replicates": {name: (value + shared).tolist() for name in sl.METRICS}})
    return out


def lines_of(text):
    return {line.split("|")[1].strip(): [part.strip() for part in line.split("|")[2:-1]]
            for line in text.splitlines() if line.startswith("| `")}


def test_the_table_says_what_the_rows_say():
    found = rows()
    lines = lines_of(sl.table(found))
    values = np.array([row["metrics"][sl.PRIMARY] for row in found if row["arm"] == "silver"])
    assert lines["`silver`"][0] == "5 of 10" and lines["`weak`"][0] == "5"
    assert lines["`silver` - `scratch`"][0] == "5"
    assert lines["`silver`"][1].startswith(f"{values.mean():.3f} ± {values.std(ddof=1):.3f} [")
    assert lines["`silver` - `scratch`"][3] == "higher" and lines["`silver` - `scratch`"][2] == "< 0.001"
    assert lines["`silver` - `reference`"][3] == "within ± 0.03"
    difference = values.mean() - np.mean([row["metrics"][sl.PRIMARY] for row in found if row["arm"] == "reference"])
    assert lines["`silver` - `reference`"][1].startswith(f"{difference:+.3f} [")


def test_the_table_does_not_claim_what_the_rows_do_not_show():
    level = dict.fromkeys(MEANS, 0.7)
    lines = lines_of(sl.table(rows(level, spread=0.03)))
    assert lines["`silver` - `scratch`"][3] == "no difference shown"
    lines = lines_of(sl.table(rows({**MEANS, "reference": 0.88})))
    assert lines["`silver` - `reference`"][3] == "not within ± 0.03"
    lines = lines_of(sl.table(rows({**MEANS, "silver": 0.5})))
    assert lines["`silver` - `scratch`"][3] == "lower"
    lines = lines_of(sl.table(rows(seeds=1)))
    assert lines["`silver` - `scratch`"][3] == "needs two seeds" and lines["`silver`"][0] == "1 of 10"
    with pytest.raises(UserError, match="different subjects"):
        sl.table(rows() + rows(subjects="others"))


def test_a_run_is_known_by_what_decides_its_numbers(tmp_path):
    data = sl.data_digest(tmp_path / "none")
    keys = {sl.Run(arm, seed, steps).key(data) for arm in sl.ARMS for seed in (0, 1)
            for steps in ((2, 3), (3, 3))}
    assert len(keys) == 2 * 2 * len(sl.ARMS) - 2  # Of CLIP alone the supervised steps change nothing.
    assert sl.Run("silver", 0, (2, 3)).key(data) != sl.Run("silver", 0, (2, 3)).key("another data set")
    assert sl.Run("silver", 0, (2, 3)).key(data) != sl.Run("silver", 0, (2, 3), "validation").key(data)


def test_commands_of_an_arm(tmp_path):
    job = sl.make_job(sl.Run("weak", 3, (20, 30)), key="abcdefgh", data=tmp_path / "d", out=tmp_path)
    supervised, clip, evaluate = job.commands.values()
    assert "--config.data.labels=weak" in supervised and "--config.total_steps=20" in supervised
    workdir = next(word.partition("=")[2] for word in supervised if word.startswith("--workdir="))
    assert f"--config.init_from={workdir}" in clip and not any("data.labels" in word for word in clip)
    assert "--config.total_steps=30" in clip and "--config.seed=3" in clip and "--split=test" in evaluate
    alone = sl.make_job(sl.Run("scratch", 3, (20, 30)), key="abcdefgh", data=tmp_path / "d", out=tmp_path)
    assert list(alone.commands) == ["clip", "evaluate"] and not any("init_from" in w for w in alone.commands["clip"])
    long = sl.make_job(sl.Run("scratch_long", 3, (20, 30)), key="abcdefgh", data=tmp_path / "d", out=tmp_path)
    assert "--config.total_steps=50" in long.commands["clip"]
    # Every setting is a key of its config.
    for stage, path in sl.Run("weak", 3, (20, 30)).stages().items():
        config = cli.read_config(path)
        for setting in sl.Run("weak", 3, (20, 30)).settings(stage):
            cli.set_override(config, *setting.split("=", 1))


def test_plan_and_finished_runs(tmp_path, capsys):
    flags = [f"--out={tmp_path}", f"--data={tmp_path / 'none'}", "--seeds=2", "--jobs=1", "--arms=scratch,silver"]
    assert sl.main([*flags, "--plan", "--fresh"]) == cli.OK
    assert "4 runs, 0 finished, 4 to do" in capsys.readouterr().out
    run = sl.Run("silver", 1, tuple(sl.STEPS.values()))
    row = {**rows(seeds=2)[7], "key": run.key(sl.data_digest(tmp_path / "none"))}
    assert (row["arm"], row["seed"]) == ("silver", 1)
    (tmp_path / "runs.jsonl").write_text(json.dumps(row) + "\n")
    assert sl.main([*flags, "--plan", "--fresh"]) == cli.OK
    assert "4 runs, 1 finished, 3 to do" in capsys.readouterr().out
    assert sl.main([*flags, "--only-table", "--fresh"]) == cli.OK
    assert "| `silver` | 1 of 2 |" in (tmp_path / "table.md").read_text()
    with pytest.raises(UserError, match="did you mean 'silver'"):
        sl.main([f"--out={tmp_path}", "--arms=silvr"])


def test_each_arm_has_its_number_of_seeds(tmp_path, capsys):
    flags = [f"--out={tmp_path}", f"--data={tmp_path / 'none'}", "--plan", "--fresh"]
    assert sl.main(flags) == cli.OK
    planned = capsys.readouterr().out.splitlines()[1:]
    for arm, count in sl.SEEDS.items():
        assert [f"  {arm} seed {seed}" in planned for seed in range(count + 1)] == [True] * count + [False]
    assert sl.main([*flags, "--seeds=3"]) == cli.OK
    assert len(capsys.readouterr().out.splitlines()) == 1 + 3 * len(sl.ARMS)


def test_label_quality_is_counted_by_hand(phantom_ct_data):
    found = sl.label_quality(phantom_ct_data)
    names = dataset.load_metadata(phantom_ct_data).label_names
    records = source.open_records(phantom_ct_data, "train")
    right, known = {}, 0
    for record in records:
        for name, column in label_columns(names, "weak").items():
            if record.labels[column] in (0, 1):
                known += 1
                truth = record.labels[label_columns(names)[name]]
                right.setdefault(name, []).append(truth == record.labels[column])
    assert found["weak"]["accuracy"] == pytest.approx(np.mean([np.mean(hits) for hits in right.values()]))
    assert found["weak"]["unknown"] == pytest.approx(1 - known / (len(records) * 13))
    assert found["silver"]["accuracy"] > found["weak"]["accuracy"]
