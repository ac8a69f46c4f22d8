"""The silver-label experiment: keys of runs, their commands, and the table of known rows."""

import json

import numpy as np
import pytest

from benchmarks.experiments import silver_arms as arms
from benchmarks.experiments import silver_labels as sl
from benchmarks.experiments.worlds import WORLDS
from lgdea_jax import cli
from lgdea_jax.data import dataset, source
from lgdea_jax.errors import UserError
from lgdea_jax.findings.label_sets import label_columns
from lgdea_jax.runtime.log import read_rows

MEANS = {"scratch": 0.62, "scratch_long": 0.64, "reference": 0.80, "silver": 0.795, "weak": 0.66}
EXPECTED = {"scratch": 10, "scratch_long": 5, "reference": 10, "silver": 10, "weak": 5, "silver_both": 5,
            "silver_shared": 5}


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


def tables_of(found):
    return lines_of("\n".join(sl.tables(found, expected=EXPECTED).values()))


def test_the_table_says_what_the_rows_say():
    found = rows()
    lines = tables_of(found)
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
    lines = tables_of(rows(level, spread=0.03))
    assert lines["`silver` - `scratch`"][3] == "no difference shown"
    lines = tables_of(rows({**MEANS, "reference": 0.88}))
    assert lines["`silver` - `reference`"][3] == "not within ± 0.03"
    lines = tables_of(rows({**MEANS, "silver": 0.5}))
    assert lines["`silver` - `scratch`"][3] == "lower"
    lines = tables_of(rows(seeds=1))
    assert lines["`silver` - `scratch`"][3] == "needs two seeds" and lines["`silver`"][0] == "1 of 10"
    with pytest.raises(UserError, match="different subjects"):
        sl.tables(rows() + rows(subjects="others"), expected=EXPECTED)


def test_p_values_are_adjusted_within_their_group():
    found = rows({"scratch_long": 0.64, "silver": 0.66, "silver_both": 0.67, "silver_shared": 0.66}, spread=0.012)
    alone = [row for row in found if row["arm"] in ("scratch_long", "silver_shared")]
    raw, both = tables_of(alone), tables_of(found)
    one, two = (float(tables_of([row for row in found if row["arm"] in ("scratch_long", arm)])[
        f"`{arm}` - `scratch_long`"][2]) for arm in ("silver_shared", "silver_both"))
    name = "`silver_shared` - `scratch_long`"
    assert raw[name][:2] == both[name][:2]
    # Holm of two by hand; the four further comparisons do not count here.
    assert float(both[name][2]) == pytest.approx(2 * one if one < two else max(one, 2 * two), abs=0.0015)
    # Whether two arms are equivalent is no test with a p-value.
    assert tables_of(rows())["`silver` - `reference`"][2] == "-"


def test_rows_of_another_build_have_tables_of_their_own():
    text = sl.report(rows(seeds=2), rows({**MEANS, "silver": 0.9}), expected=EXPECTED)
    own, earlier = text.split(f"### {sl.EARLIER}: means")
    assert "| `silver` | 2 of 10 | 0.79" in own and "| `silver` | 5 of 10 | 0.90" in earlier
    assert sl.EARLIER not in sl.report(rows(seeds=2), [], expected=EXPECTED)


def test_committed_rows_are_runs_of_the_arms(tmp_path):
    data = {build: WORLDS["ct"].digest(tmp_path / "none", rules) for build, rules in ((1, "rules@2"), (2, "rules@3"))}
    found = read_rows(sl.COMMITTED)
    for row in found:
        run = sl.Run(row["arm"], row["seed"], tuple(row["steps"]), row["split"], row.get("build", 1))
        assert run.key(data[run.build]) == row["key"], run
        assert row["seed"] < sl.SEEDS[run.build][run.arm]
    assert len({row["key"] for row in found}) == len(found)


def test_all_arms_but_scratch_have_the_same_steps():
    total = {arm: sum(sl.Run(arm, 0, (600, 300)).steps_of(stage) for stage in sl.ARMS[arm]) for arm in sl.ARMS}
    assert total.pop("scratch") == 300 and set(total.values()) == {900}
    shared = sl.Run("silver_shared", 0, (600, 300))
    assert [shared.steps_of(stage) for stage in shared.stages()] == [450, 150, 300]


def test_a_run_is_known_by_what_decides_its_numbers(tmp_path):
    data = WORLDS["ct"].digest(tmp_path / "none")
    keys = {sl.Run(arm, seed, steps).key(data) for arm in sl.ARMS for seed in (0, 1)
            for steps in ((2, 3), (3, 3))}
    assert len(keys) == 2 * 2 * len(sl.ARMS) - 2  # Of CLIP alone the supervised steps change nothing.
    assert sl.Run("silver", 0, (2, 3), build=1).key(data) != sl.Run("silver", 0, (2, 3)).key(data)
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
    for arm in sl.ARMS:
        run = sl.Run(arm, 3, (20, 30))
        for name, stage in run.stages().items():
            config = cli.read_config(stage.config)
            for setting in run.settings(name):
                cli.set_override(config, *setting.split("=", 1))


def test_commands_of_arms_with_two_towers(tmp_path):
    for arm, last in (("silver_both", "clip"), ("silver_shared", "shared")):
        job = sl.make_job(sl.Run(arm, 3, (20, 30)), key="abcdefgh", data=tmp_path / "d", out=tmp_path)
        assert list(job.commands) == ["image", "text", last, "evaluate"]
        folders = [tmp_path / f"{arm}_3_abcdef" / stage for stage in ("image", "text", last)]
        assert f"--config.init_from={folders[0]},{folders[1]}" in job.commands[last]
        assert f"--checkpoint={folders[2]}" in job.commands["evaluate"]
        # Both towers are taken, and learnt silver labels.
        configs = {name: resolved_config(arm, name) for name in ("image", "text", last)}
        assert configs[last].init_parts == ("image_tower", "text_tower")
        assert configs["image"].data.labels == configs["text"].data.labels == "silver"
        assert [configs[name].method for name in ("image", "text")] == ["supervised", "supervised_text"]
    assert resolved_config("silver_both", "clip").method == "clip"
    assert resolved_config("silver_shared", "shared").method == "clip_supervised"
    assert resolved_config("lgdea_ct", "lgdea").method == "lgdea_pairs"
    assert resolved_config("lgdea_ct", "lgdea").init_parts == ("image_tower",)


def resolved_config(arm, stage):
    config = cli.read_config(arms.ARMS[arm][stage].config)
    for setting in sl.Run(arm, 3, (20, 30)).settings(stage):
        cli.set_override(config, *setting.split("=", 1))
    return config


def test_plan_and_finished_runs(tmp_path, capsys):
    flags = [f"--out={tmp_path}", f"--data={tmp_path / 'none'}", "--seeds=2", "--jobs=1", "--arms=scratch,silver"]
    assert sl.main([*flags, "--plan", "--fresh"]) == cli.OK
    assert "4 runs, 0 finished, 4 to do" in capsys.readouterr().out
    run = sl.Run("silver", 1, tuple(sl.STEPS.values()))
    row = {**rows(seeds=2)[7], "build": sl.BUILD, "key": run.key(WORLDS["ct"].digest(tmp_path / "none"))}
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
    for arm, count in sl.SEEDS[sl.BUILD].items():
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
