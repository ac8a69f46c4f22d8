"""The experiment's command: the grid, refusals, what counts as finished, the tables of made-up rows; real runs."""

import html.parser
import json
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.experiments import limited_pairs as lp
from benchmarks.experiments.arms import (
    GRID,
    Run,
    Setting,
    known_methods,
    make_runs,
    select_cells,
)
from benchmarks.experiments.comparisons import Cell, Contrast, verdict
from benchmarks.experiments.keys import digest
from benchmarks.experiments.plan import expected_seconds
from benchmarks.experiments.plots import finding_differences
from benchmarks.experiments.worlds import WORLDS
from lgdea_jax import cli
from lgdea_jax.errors import UserError
from tests.benchmarks.rows import make_row
from tests.pages.checks import check_html

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_committed_rows(tmp_path, monkeypatch):
    """These tests are about their own rows."""
    monkeypatch.setattr(lp, "COMMITTED", tmp_path / "committed.jsonl")


def runs_of(*flags):
    arguments = lp.make_parser().parse_args(["--out=x", *flags])
    return make_runs(select_cells(arguments), seeds=arguments.seeds, steps=arguments.steps, split=arguments.split,
                     extra=arguments.set, first_seed=arguments.first_seed)


def write_rows(path, runs, data, level=lambda run: 0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        for run in runs:
            key = run.key(WORLDS["phantom"].digest(data))
            file.write(json.dumps(make_row(run, key, level(run))) + "\n")


# --- The grid ---------------------------------------------------------------------------------------------------------


def test_the_whole_grid():
    runs = runs_of()
    seeds = {}
    for run in runs:
        seeds.setdefault((run.method, run.setting), []).append(run.seed)
    assert set(known_methods()) == {method for method, _ in seeds}
    many = {Setting(0.01), Setting(0.05), Setting(40), Setting(40, 20_000)}
    assert all(found == list(range(8 if setting in many else 5 if setting.ct else 3))
               for (_, setting), found in seeds.items())
    assert {method for method, setting in seeds if setting.pairs == 1} == {"clip", "clip_evidence_soft", "lgdea_pairs"}
    assert {setting for method, setting in seeds if method == "lgdea" and setting.pairs > 1} == {
        Setting(pairs, images) for pairs in (40, 200) for images in (500, 2000, 8000, 20_000)}
    assert {setting for method, setting in seeds if method == "lgdea_pairs" and setting.pairs > 1} == {
        Setting(40), Setting(200)}
    assert len({(run.steps, run.setting) for run in runs}) == len(GRID)  # Equal steps for all methods of a setting.
    order = [(run.seed, run.setting) for run in runs]
    assert order == sorted(order)  # A first seed of everything, small shares first.


def test_seeds_that_are_not_reported():
    runs = runs_of("--cells=clip@0.01,lgdea@0.05", "--seeds=2", "--first_seed=8")
    assert [(run.method, run.seed) for run in runs] == [("clip", 8), ("lgdea", 8), ("clip", 9), ("lgdea", 9)]


def test_what_the_methods_read():
    def of(method, pairs):
        return Run(method, pairs, 0, "test", 10).config()

    for method in known_methods():
        batch = of(method, 0.01)["batch"]
        assert (batch["images"], batch["reports"]) == ("auto", 0 if method == "lgdea_pairs_alone" else "auto"), method
    assert of("oracle", 0.05)["memory"]["truth"] and not of("lgdea", 0.05)["memory"]["truth"]
    large = Run("lgdea", 40, 0, "test", 10, images=500).config()["data"]
    assert (large["pairs"], large["images"], large["reports"]) == (40, 500, 2000)
    everything = of("lgdea_pairs", 1.0)
    assert everything["batch"]["pairs"] == 64 and "memory" not in everything and "strong" not in everything
    # One tower at every share, whatever the quick start's is.
    assert everything["model"] == of("lgdea_pairs", 0.05)["model"]


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_an_arm_is_what_a_user_trains_with_that_share_alone(share):
    """`configs/phantom.py --config.data.pairs=SHARE` and `:limited` are the experiment's setting."""
    run = Run("lgdea", share, 3, "test", GRID[Setting(share)].steps)
    own = ("log.tensorboard", "eval.every", "checkpoint.every")  # Of how a run is watched.
    flags = [f"--config.data.pairs={share}", "--config.seed=3"]
    for config in ("configs/phantom.py", "configs/phantom.py:limited"):
        found, _ = cli.load_config([f"--config={config}", *flags])
        expected = cli.read_config("configs/phantom.py")
        cli.set_overrides(expected, [tuple(setting.split("=", 1)) for setting in run.settings()])
        for key in own:
            cli.set_override(expected, key, str(getattr(found, key.split(".")[0])[key.split(".")[1]]))
        assert found.to_json_best_effort() == expected.to_json_best_effort()
    assert found.total_steps == GRID[Setting(share)].steps == 2000 and found.augment.noise == 6


def test_a_key_is_what_decides_the_numbers():
    def key(method="lgdea", pairs=0.01, seed=0, split="test", steps=10, extra=(), images=0, data="d"):
        return Run(method, pairs, seed, split, steps, extra, images).key(data)

    others = [key(method="oracle"), key(pairs=0.05), key(seed=1), key(split="validation"), key(steps=11), key(data="e"),
              key(pairs=40), key(pairs=40, images=500), key(extra=("memory.own=0.3",)),
              key(extra=("methods.lgdea.own_share=0.3",))]
    assert len({key(), *others}) == len(others) + 1
    assert key(extra=("log.every=1", "compile_cache=elsewhere")) == key()
    # A key that came later, at the value that does what was done before, leaves finished runs as they are.
    assert key(extra=("data.images=1.0",)) == key() != key(extra=("data.images=0.5",))
    # A change to one method, or to the memory that it does not have, leaves the runs of another finished.
    plain = key(method="clip")
    assert key(method="clip", extra=("methods.lgdea.own_share=0.3", "memory.own=0.3")) == plain
    assert key(method="clip", extra=("batch.pairs=16",)) != plain
    first, second = (Run("clip", 0.01, seed, "test", 10) for seed in (0, 1))
    assert first.config_hash() == second.config_hash()


@pytest.mark.parametrize("flags, message", [
    (["--methods=lgdae"], "unknown method 'lgdae' (did you mean 'lgdea'?); known: "),
    (["--pairs=0.02"], "unknown share or number of pairs '0.02'; known: 0.01, 0.05, 0.1, 1, 0.05ct, 40, 40+500, "),
    (["--pairs=some"], "unknown share or number of pairs 'some'"),
    (["--pairs=40+501"], "unknown share or number of pairs '40+501'"),
    (["--cells=clip@40"], "clip@40: not of this experiment; with these data: lgdea_pairs"),
    (["--cells=lgdea"], "METHOD@PAIRS, as lgdea@0.01"),
    (["--cells=supervised@0.01"], "unknown method 'supervised'"),
    (["--cells=oracle@1.0"], "oracle@1: with all pairs nothing is unpaired, and oracle is lgdea_pairs"),
    (["--methods=lgdea", "--pairs=1"], "with all pairs nothing is unpaired"),
    (["--cells=clip@1", "--pairs=1"], "--cells excludes"),
    (["--seeds=0"], "--seeds=0: at least 1"),
    (["--first_seed=-1"], "--first_seed=-1: at least 0"),
    (["--jobs=0"], "--jobs=0: at least 1"),
    (["--set=batch.pairs"], "KEY=VALUE"),
    (["--set=batch.pear=1"], "unknown config key 'batch.pear' (did you mean 'batch.pairs'?)"),
    (["--set=total_steps=5"], "total_steps is set by the experiment itself"),
    (["--cells=clip@1", "--compare=clip@1"], "METHOD@SETTING:METHOD@SETTING"),
    (["--cells=clip@1", "--compare=clip@1:lgdea@0.01"], "lgdea@0.01 is not among the cells of this experiment"),
    (["--steps=many"], "invalid int value"),
    (["--plan", "--only-table"], "not allowed with"),
])
def test_refusals(flags, message, tmp_path):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        lp.main([f"--out={tmp_path}", f"--data={tmp_path / 'none'}", *flags])
    assert "\n" not in str(error.value)


def test_data_is_known_before_it_is_made(phantom_data, tmp_path):
    assert WORLDS["phantom"].digest(phantom_data) != WORLDS["phantom"].digest(tmp_path / "none")
    from data_prep import build

    config = WORLDS["phantom"].data()
    before = WORLDS["phantom"].digest(tmp_path / "data")
    for split in ("train", "validation", "test"):  # Not those 5,500 studies; the sizes are put back for the digest.
        config.phantom[split] = 4
    config.workers, config.tokenizer.vocab_size = 1, 300
    build.build(config, tmp_path / "data", progress=False)
    from lgdea_jax.data.dataset import load_metadata

    metadata = load_metadata(tmp_path / "data")
    found = metadata.config
    assert WORLDS["phantom"].digest(tmp_path / "data") != before
    found["phantom"].update(train=4000, validation=500, test=1000)
    found["tokenizer"]["vocab_size"] = 4000
    parts = {name: found[name] for name in ("phantom", "image_size", "tokenizer")}
    assert digest({**parts, "extractor": metadata.extractor}) == before


def test_runs_on_evidence_of_earlier_rules_are_shown_only_when_asked_for(tmp_path, capsys):
    flags = ["--cells=lgdea@0.01", "--seeds=1", f"--data={tmp_path / 'none'}"]
    [run] = runs_of(*flags)
    out = tmp_path / "out"
    out.mkdir()
    key = run.key(WORLDS["phantom"].digest(tmp_path / "none", "rules@1"))
    (out / "runs.jsonl").write_text(json.dumps(make_row(run, key, 0.8)) + "\n")
    assert lp.main([f"--out={out}", *flags, "--plan"]) == cli.OK
    assert "1 runs, 0 finished" in capsys.readouterr().out
    assert lp.main([f"--out={out}", *flags, "--only-table", "--extractor=rules@1"]) == cli.OK
    assert "| 1% | `lgdea` | 1 |" in capsys.readouterr().out
    with pytest.raises(UserError, match="--extractor goes with --only-table"):
        lp.main([f"--out={out}", *flags, "--extractor=rules@1"])


# --- Plan and table ---------------------------------------------------------------------------------------------------


def test_plan_runs_nothing(tmp_path, capsys):
    out, data = tmp_path / "out", tmp_path / "none"
    flags = [f"--out={out}", f"--data={data}", "--cells=clip@0.01,lgdea@0.05", "--seeds=2", "--jobs=2", "--plan"]
    assert lp.main(flags) == cli.OK
    text = capsys.readouterr().out
    assert "4 runs, 0 finished, 4 to do, 2 at a time" in text and "a guess" in text
    assert "| 5% | `lgdea` | 2000 | 2 | 0 |" in text
    assert not out.exists() and not data.exists()
    write_rows(out / "runs.jsonl", runs_of("--cells=clip@0.01", "--seeds=1"), data)
    write_rows(lp.COMMITTED, runs_of("--cells=lgdea@0.05", "--seeds=1"), data)
    assert lp.main(flags) == cli.OK
    text = capsys.readouterr().out
    assert "4 runs, 2 finished, 2 to do, 2 at a time: about 1:30 (by the finished runs)" in text  # 90 s each.
    assert lp.main([*flags, "--fresh"]) == cli.OK
    assert "1 finished" in capsys.readouterr().out


def test_expected_seconds_go_by_what_is_alike():
    rows = [make_row(run, "0" * 8, 0.5) for run in runs_of("--cells=clip@0.01,lgdea@0.01", "--seeds=2", "--steps=100")]
    for row, seconds in zip(rows, (10, 100, 20, 9999)):
        row["seconds"] = {"train": seconds}
    rows[3]["resumed"] = True
    assert expected_seconds(Run("clip", 0.05, 9, "test", 100), rows) == 15
    assert expected_seconds(Run("lgdea", 0.05, 9, "test", 200), rows) == 200
    assert expected_seconds(Run("oracle", 0.05, 9, "test", 200), rows) == 40
    assert expected_seconds(Run("oracle", 0.05, 9, "test", 1000), []) == 310


class Links(html.parser.HTMLParser):
    """Everything that a page would load."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        """Attributes with addresses."""
        self.found += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]


def test_table_plots_and_page_of_what_is_finished(tmp_path, capsys):
    out, data = tmp_path / "out", tmp_path / "none"
    levels = {"clip": 0.6, "clip_evidence_soft": 0.7, "lgdea_pairs": 0.8, "lgdea": 0.83, "oracle": 0.95}
    flags = ("--methods=" + ",".join(levels), "--pairs=0.01,0.05,1")
    runs = [run for run in runs_of(*flags) if run.seed < (2 if run.method == "lgdea" else 8)]
    write_rows(out / "runs.jsonl", runs, data, lambda run: levels[run.method])
    assert lp.main([f"--out={out}", f"--data={data}", *flags, "--only-table"]) == cli.OK
    text = capsys.readouterr().out
    assert not list(out.glob("*_*_*")) or all(path.suffix == ".png" for path in out.glob("*_*_*"))
    assert re.search(r"\| 1% \| `lgdea_pairs` \| 8 \| 0\.\d{3} ± 0\.\d{3} \|", text)
    assert "| 1% | `lgdea` | 2 of 8 |" in text and "| 5% | `lgdea` | 2 of 8 |" in text
    lines = text.splitlines()
    strongest = next(line for line in lines if line.startswith("| Pairs-only LGDEA against"))
    assert "better on 3 of 3 at p < 0.05" in strongest and strongest.endswith("| final |")
    assert next(line for line in lines if line.startswith("| LGDEA at 5%")).endswith("| preliminary |")
    assert "mean teacher" not in text.split("### Share")[0]  # Not in this grid.
    assert re.search(r"\| 1% \| `lgdea` \| 2 \| -?\d+%", text)
    assert (out / "table.md").read_text().count("\n### ") == text.count("### ")
    pictures = sorted(path.name for path in out.glob("*.png"))
    assert pictures == ["findings.png", "grounding_cnr.png", "grounding_pointing.png",
                        "retrieval_precision_at_5.png", "zero_shot_auroc.png"]
    for name in pictures:
        with Image.open(out / name) as picture:
            assert min(picture.size) > 500 and len(picture.convert("RGB").getcolors(1 << 24)) > 20
    page = (out / "index.html").read_text()
    links = Links()
    links.feed(page)
    assert [link.split(",")[0] for link in links.found] == ["#main"] + ["data:image/png;base64"] * len(pictures)
    check_html(page)
    assert "python -m benchmarks.experiments.limited_pairs" in page and runs[0].config_hash() in page
    for run in runs[:3]:
        assert run.config_hash() in page


def test_the_large_world_has_plots_of_its_own_and_one_lgdea_pairs_for_all(tmp_path, capsys):
    out, data = tmp_path / "out", tmp_path / "none"
    levels = {"lgdea_pairs": 0.8, "lgdea": 0.85, "oracle": 0.9}
    flags = ["--cells=lgdea_pairs@40,lgdea@40+500,lgdea@40+20000,oracle@40+20000,lgdea@200+500", "--seeds=3",
             f"--large_data={data}"]
    runs = [run for run in runs_of(*flags) if run.images != 500]
    digest = WORLDS["large"].digest(data)
    assert digest != WORLDS["phantom"].digest(data)
    out.mkdir()
    (out / "runs.jsonl").write_text("".join(
        json.dumps(make_row(run, run.key(digest), levels[run.method])) + "\n" for run in runs))
    assert lp.main([f"--out={out}", f"--data={data}", *flags, "--only-table"]) == cli.OK
    text = capsys.readouterr().out
    assert re.search(r"\| 40 pairs, 20,000 images \| `lgdea` \| 3 \| 0\.8", text)
    assert "Not run yet: 40 pairs, 500 images (`lgdea`); 200 pairs, 500 images (`lgdea`)." in text
    assert "Effect of 20,000 unpaired images (`lgdea` at 40 pairs, 20,000 images, `lgdea_pairs` at 40 pairs)" in text
    # About half of the way, and paired by seed: the same pairs.
    assert 25 < int(re.search(r"\| 40 pairs, 20,000 images \| `lgdea` \| 3 \| (\d+)%", text)[1]) < 75
    assert (out / "images_zero_shot_auroc.png").is_file() and not (out / "findings.png").exists()
    assert "AUROC against the number of unpaired images" in (out / "index.html").read_text()


def test_the_ct_world_is_one_of_its_own(tmp_path, capsys):
    flags = ["--cells=lgdea@0.05ct,lgdea_pairs@0.05ct,lgdea@0.05,lgdea_pairs@0.05", "--seeds=3"]
    runs = runs_of(*flags)
    own = [run for run in runs if run.ct]
    assert [(run.method, run.seed, run.steps, run.name) for run in own[:3]] == [
        ("lgdea_pairs", 0, 1000, "lgdea_pairs 5% of CT seed 0"), ("lgdea", 0, 1000, "lgdea 5% of CT seed 0"),
        ("lgdea_pairs", 1, 1000, "lgdea_pairs 5% of CT seed 1")]
    # What a user trains with the limited config, but for the alarm and how a run is watched.
    found, _ = cli.load_config(["--config=configs/lgdea_ct.py:phantom,limited", "--config.seed=0"])
    expected = cli.read_config("configs/lgdea_ct.py:phantom")
    cli.set_overrides(expected, [tuple(setting.split("=", 1)) for setting in own[1].settings()])
    for key in ("log.tensorboard", "eval.every", "checkpoint.every", "alarm.information"):
        cli.set_override(expected, key, str(getattr(found, key.split(".")[0])[key.split(".")[1]]))
    assert found.to_json_best_effort() == expected.to_json_best_effort()
    assert own[1].config()["volume"] and "volume" not in runs[0].config()

    out = tmp_path / "out"
    digests = {ct: WORLDS["ct" if ct else "phantom"].digest(tmp_path / "none") for ct in (True, False)}
    rows = [make_row(run, run.key(digests[run.ct]), {"lgdea_pairs": 0.7, "lgdea": 0.8}[run.method]) for run in runs]
    for run, row in zip(runs, rows, strict=True):  # Other subjects.
        row["subjects"] += "ct" if run.ct else ""
    out.mkdir()
    (out / "runs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    none = [f"--{name}={tmp_path / 'none'}" for name in ("data", "ct_data")]
    assert lp.main([f"--out={out}", *none, *flags, "--only-table"]) == cli.OK
    text = capsys.readouterr().out
    assert re.search(r"\| 5% of CT \| `lgdea` \| 3 \| 0\.(79|8)", text)
    assert "Effect of the unpaired volumes, chest CT (`lgdea` at 5% of CT, `lgdea_pairs` at 5% of CT)" in text


def test_differences_by_finding_are_paired_by_seed():
    runs = runs_of("--cells=lgdea@0.01,lgdea_pairs@0.01", "--seeds=2")
    rows = {run: make_row(run, "0" * 8, {"lgdea": 0.8, "lgdea_pairs": 0.7}[run.method]) for run in runs}
    cells = [Cell(method, Setting(0.01), 1, "h", 2, tuple(row for run, row in rows.items() if run.method == method))
             for method in ("lgdea", "lgdea_pairs")]
    # Mass has no positive pair with seed 0 and one with seed 1; hernia is not defined.
    assert [(count, round(difference, 6)) for count, difference in finding_differences(cells)] == [
        (0, 0.1), (5, 0.1), (1, 0.1), (5, 0.1)]
    assert finding_differences(cells[:1]) == []


def test_what_is_not_run_is_named(tmp_path, capsys):
    assert lp.main([f"--out={tmp_path}", f"--data={tmp_path / 'none'}", "--cells=clip@0.01,lgdea_pairs@0.01,"
                    "clip_evidence_soft@0.01,lgdea@0.01,oracle@0.01", "--only-table"]) == cli.OK
    text = capsys.readouterr().out
    assert "Not run yet: 1% (`clip`, `clip_evidence_soft`, `lgdea_pairs`, `lgdea`, `oracle`)." in text
    assert "### Results" not in text and "| 1% |" not in text


def test_non_inferiority():
    rows = {name: [make_row(Run("lgdea", 0.05, seed, "test", 1), f"{seed:08x}", level) for seed in range(8)]
            for name, level in (("a", 0.80), ("b", 0.80), ("c", 0.75))}
    a, b, c = (Cell("lgdea", Setting(0.05), 1, "h", 8, tuple(found)) for found in rows.values())
    question = Contrast("q", "x@1", "y@1", margins={"zero_shot/auroc": 0.02})
    assert verdict(question, a, b).startswith("zero-shot AUROC: non-inferior (lower bound +0.000")
    assert "non-inferiority not shown" in verdict(question, c, a)
    plain = Contrast("q", "x@1", "y@1")
    assert verdict(plain, c, a).startswith("better on 0 of 3 at p < 0.05; worse on zero-shot AUROC")


def test_rows_of_other_subjects_are_refused(tmp_path):
    runs = runs_of("--cells=clip@0.01", "--seeds=2")
    cells = [Cell("clip", Setting(0.01), 1, "h", 2, tuple(make_row(run, "0" * 8, 0.5, subjects=f"s{run.seed}")
                                                         for run in runs))]
    with pytest.raises(UserError, match="different subjects"):
        lp.write(cells, [], tmp_path, command="c")


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=re.escape('pip install -e ".[colab]"')):
        lp.main([f"--out={tmp_path}", f"--data={tmp_path / 'none'}", "--only-table"])
