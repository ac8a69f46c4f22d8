"""The experiment's command: the grid, refusals, what counts as finished, the tables of made-up rows; real runs."""

import html.parser
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.experiments import limited_pairs as lp
from benchmarks.experiments.arms import (
    DATA_CONFIG,
    GRID,
    Run,
    Setting,
    known_methods,
    make_runs,
    select_cells,
)
from benchmarks.experiments.comparisons import METRICS, Cell, Contrast, verdict
from benchmarks.experiments.keys import digest
from benchmarks.experiments.plan import expected_seconds
from benchmarks.experiments.plots import finding_differences
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
            key = run.key(lp.data_digest(data))
            file.write(json.dumps(make_row(run, key, level(run))) + "\n")


# --- The grid ---------------------------------------------------------------------------------------------------------


def test_the_whole_grid():
    runs = runs_of()
    seeds = {}
    for run in runs:
        seeds.setdefault((run.method, run.setting), []).append(run.seed)
    assert set(known_methods()) == {method for method, _ in seeds}
    many = {Setting(0.01), Setting(0.05), Setting(40), Setting(40, 20_000)}
    assert all(found == list(range(8 if setting in many else 3)) for (_, setting), found in seeds.items())
    assert {method for method, setting in seeds if setting.pairs == 1} == {"clip", "clip_evidence_soft", "lgdea_pairs"}
    assert {setting for method, setting in seeds if method == "lgdea" and setting.large} == {
        Setting(pairs, images) for pairs in (40, 200) for images in (500, 2000, 8000, 20_000)}
    assert {setting for method, setting in seeds if method == "lgdea_pairs" and setting.large} == {
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
    (["--pairs=0.02"], "unknown share or number of pairs '0.02'; known: 0.01, 0.05, 0.1, 1, 40, 40+500, "),
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
    assert lp.data_digest(phantom_data) != lp.data_digest(tmp_path / "none")
    from data_prep import build

    config = cli.read_config(DATA_CONFIG)
    before = lp.data_digest(tmp_path / "data")
    for split in ("train", "validation", "test"):  # Not those 5,500 studies; the sizes are put back for the digest.
        config.phantom[split] = 4
    config.workers, config.tokenizer.vocab_size = 1, 300
    build.build(config, tmp_path / "data", progress=False)
    from lgdea_jax.data.dataset import load_metadata

    found = load_metadata(tmp_path / "data").config
    assert lp.data_digest(tmp_path / "data") != before
    found["phantom"].update(train=4000, validation=500, test=1000)
    found["tokenizer"]["vocab_size"] = 4000
    assert digest({name: found[name] for name in ("phantom", "extractor", "image_size", "tokenizer")}) == before


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
    digest = lp.data_digest(data, large=True)
    assert digest != lp.data_digest(data)
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


# --- Real runs --------------------------------------------------------------------------------------------------------

TINY = ("model.width=16", "model.prototypes=8", "model.lesion_queries=2", "model.image.resnet.sizes.width=8",
        "model.text.bert.sizes.width=16", "model.text.bert.sizes.heads=2", "model.text.bert.sizes.mlp_dim=32",
        "text.length.report=24", "text.length.evidence=16", "text.length.phrases=8", "batch.pairs=4", "eval.records=8")


def command(out, data, cache, *flags):
    """The experiment of two cells with one seed, one run at a time."""
    return [sys.executable, "-m", "benchmarks.experiments.limited_pairs",
            f"--out={out}", f"--data={data}", "--seeds=1", "--jobs=1",
            "--cells=lgdea_pairs@0.1,clip@1.0", "--fresh", *(f"--set={setting}" for setting in TINY),
            f"--set=compile_cache={cache}", *flags]


def execute(*args, status=0):
    """Runs it to its end and returns (stdout, stderr)."""
    environment = {**os.environ, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    done = subprocess.run(command(*args), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == status, done.stderr
    return done.stdout, done.stderr


def living(folder):
    """Command lines of processes that name `folder`, this one's excepted."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            found += [line] if str(folder) in line else []
    return found


@pytest.fixture
def start():
    """Starts an experiment in its own process, which does not outlive the test."""
    started = []

    def begin(*args):
        started.append(subprocess.Popen(command(*args), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                        text=True))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def wait_until(happened, seconds=500):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


@pytest.mark.slow
def test_end_to_end_with_a_kill_in_the_middle(start, phantom_data, compile_cache, tmp_path):
    """Killed while the second run trains: nothing lives on, the first is not done again, the second goes on."""
    flags = ("--steps=600",)
    process = start(tmp_path, phantom_data, compile_cache, *flags)
    journal = tmp_path / "runs.jsonl"

    def second_trains():
        assert process.poll() is None, process.stderr.read()
        log = next(iter(tmp_path.glob("clip_1_0_*/metrics.jsonl")), None)
        return log is not None and log.read_text().count("\n") >= 2

    wait_until(lambda: list(tmp_path.glob("*/lock")))
    _, refused = execute(tmp_path, phantom_data, compile_cache, *flags, status=2)
    assert refused == f"error: another experiment is running in {tmp_path}: wait for it, or use another --out\n"
    wait_until(second_trains)
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = journal.read_text()
    assert first.count("\n") == 1
    wait_until(lambda: not living(tmp_path))
    with open(journal, "a", encoding="utf-8") as file:
        file.write('{"key": "cut sh')  # A kill in the middle of a line.
    folder = next(tmp_path.glob("clip_1_0_*"))
    saved = [int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit()]
    assert saved and max(saved) < 600
    trained = (next(tmp_path.glob("lgdea_pairs_0.1_0_*")) / "metrics.jsonl").stat().st_mtime_ns

    out, errors = execute(tmp_path, phantom_data, compile_cache, *flags)
    assert f"from step {max(saved)} of this run" in (folder / "log.txt").read_text()
    assert "lgdea_pairs" not in errors and "clip 100% seed 0: zero-shot AUROC" in errors
    assert (next(tmp_path.glob("lgdea_pairs_0.1_0_*")) / "metrics.jsonl").stat().st_mtime_ns == trained
    assert journal.read_text().startswith(first)
    rows = [json.loads(line) for line in journal.read_text().splitlines() if "cut sh" not in line]
    assert [row["method"] for row in rows] == ["lgdea_pairs", "clip"]
    assert [row["resumed"] for row in rows] == [False, True]
    for row in rows:
        assert set(row["metrics"]) == set(row["replicates"]) == set(METRICS)
        assert all(len(values) == 400 for values in row["replicates"].values())
        # The metric lies where its replicates do.
        for name, value in row["metrics"].items():
            drawn = [v for v in row["replicates"][name] if v is not None]
            if drawn and value is not None:
                assert min(drawn) - 1e-5 <= value <= max(drawn) + 1e-5
        assert row["seconds"]["train"] > 0 and row["seconds"]["evaluate"] > 0
    assert rows[0]["subjects"] == rows[1]["subjects"]
    assert "| 10% | `lgdea_pairs` | 1 |" in out and "| 100% | `clip` | 1 |" in out
    assert (tmp_path / "index.html").exists()

    out, errors = execute(tmp_path, phantom_data, compile_cache, *flags)  # Nothing is left to do.
    assert "left, about" not in errors and len(journal.read_text().splitlines()) == 3


@pytest.mark.slow
def test_a_run_that_fails_does_not_stop_the_others(phantom_data, compile_cache, tmp_path):
    """1% of 40 studies is no pair at all."""
    out, errors = execute(tmp_path, phantom_data, compile_cache, "--steps=2", "--cells=clip@0.01,clip@1.0", status=3)
    assert "failed: clip 1% seed 0: lgdea_jax.train ended with 2: error: data.pairs=0.01 asks for 0" in errors
    assert "Not run yet: 1% (`clip`)." in out and "| 100% | `clip` | 1 |" in out
    assert "Traceback" not in errors


@pytest.mark.slow
def test_sigterm_stops_in_order(start, phantom_data, compile_cache, tmp_path):
    process = start(tmp_path, phantom_data, compile_cache, "--steps=100000")
    wait_until(lambda: list(tmp_path.glob("lgdea_pairs_0.1_0_*/metrics.jsonl")))
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 143 and "Traceback" not in errors
    assert not living(tmp_path) and not (tmp_path / "runs.jsonl").exists()
    folder = next(tmp_path.glob("lgdea_pairs_0.1_0_*"))
    assert [path for path in (folder / "checkpoints").iterdir() if path.name.isdigit()]
