"""Every command on one small run and data set, for tests of what the environment of a program can do to it."""

import contextlib
import importlib
import json
import os
import subprocess

import pytest

from lgdea_jax import cli
from tests.data_prep.shards import tables

# What writes a folder, and holds its lock; {names} are paths of `make`.
FOLDERS = {
    "build": ("data_prep.build", ["--config=configs/data/table.py", "--config.table.path={table}", "--out={out}",
                                  "--config.workers=1"]),
    "train": ("lgdea_jax.train", ["--config=tests/training/tiny.py:clip", "--workdir={out}", "--config.data.dir={data}",
                                  "--config.total_steps=1", "--config.compile_cache={cache}"]),
    "predict": ("lgdea_jax.predict", ["--checkpoint={run}", "{image}", "--prompt=edema", "--heatmaps", "--out={out}"]),
    "export": ("lgdea_jax.export", ["--checkpoint={run}", "--out={out}", "--tower=image"]),
    "export lgdea": ("lgdea_jax.export", ["--checkpoint={run}", "--out={out}", "--format=lgdea"]),
    "evaluation": ("lgdea_jax.eval.records", ["--checkpoint={run}", "--data_dir={data}", "--out={out}",
                                              "--bootstrap=0", "--tasks=zero_shot"]),
    "embed": ("lgdea_jax.embed", ["--checkpoint={run}", "{image}", "--out={out}"]),
    "prototypes": ("lgdea_jax.prototypes", ["--checkpoint={run}", "--data_dir={data}", "--out={out}", "--records=20"]),
}
# What writes one file, whole or not at all.
FILES = {
    "scan": ("data_prep.scan", ["{pictures}", "--out={out}"]),
    "score": ("data_prep.score", ["--extractor=rules", "--reports={reports}", "--reference={reference}", "--out={out}",
                                  "--min_positives=1", "--resamples=5", "--columns=findings"]),
    "audit": ("data_prep.audit", ["--data_dir={data}", "--html={out}", "--sample=30"]),
    "agreement": ("data_prep.agreement", ["--data_dir={data}", "--second={data}/evidence.csv", "--resamples=5",
                                          "--out={out}"]),
    "datasheet": ("data_prep.datasheet", ["--data_dir={data}", "--out={out}"]),
    "card": ("lgdea_jax.card", ["--checkpoint={run}", "--out={out}"]),
    "report": ("lgdea_jax.report", ["{run}", "--html={out}"]),
}
COMMANDS = FOLDERS | FILES


def make(folder, data, cache):
    """{name: path} of a trained run, a table with an image, reports and their reference."""
    from tests.training import runs

    runs.here(folder / "run", data, "total_steps=1", config="tests/training/tiny.py:lgdea", cache=cache)
    table = tables.write(folder / "table", tables.good(folder / "table"))
    (folder / "pictures").mkdir()
    tables.image(folder / "pictures", "a.png")
    (folder / "reports.csv").write_text("uid,findings\n" + "".join(
        f"{n},{'Large' if n % 2 else 'No'} pleural effusion.\n" for n in range(20)))
    (folder / "reference.csv").write_text("uid,Pleural Effusion\n" + "".join(f"{n},{n % 2}\n" for n in range(20)))
    return {"run": folder / "run", "data": data, "table": table, "pictures": folder / "pictures", "cache": cache,
            "image": folder / "pictures/a.png", "reports": folder / "reports.csv",
            "reference": folder / "reference.csv"}


def ask(command, places, capsys):
    """(exit status, lines on stderr) of a command in this process."""
    module, words = COMMANDS[command]
    if capsys:
        capsys.readouterr()
    with pytest.raises(SystemExit) as leaving:
        cli.run(importlib.import_module(module).main, [word.format(**places) for word in words])
    return leaving.value.code, capsys.readouterr().err.splitlines() if capsys else []


def assert_whole(command, path):
    """That one file is all there."""
    text = path.read_text()
    if text.startswith(("{", "[")):
        json.loads(text)
    else:
        ends = {"audit": "</html>", "report": "</html>", "scan": "a.png"}
        assert (ends.get(command, "") in text and text.endswith("\n")) or text.rstrip().endswith("</html>")


@contextlib.contextmanager
def mounted(folder, *options):
    """Mounts something on a new folder; skips where that is not permitted."""
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
