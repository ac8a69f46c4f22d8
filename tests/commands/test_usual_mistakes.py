"""The twelve usual mistakes: each is one line on stderr, with the remedy, and exit status 2 (3 for rows of a table)."""

import errno
import importlib
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from lgdea_jax import cli
from tests.training import runs

TABLE = "study_id,subject_id,split,image,report,label:Edema\ns1,p1,train,a.png,Lungs are clear.,0\n"


@pytest.fixture(scope="module")
def made(phantom_data, tmp_path_factory, compile_cache):
    """A folder with a trained RUN, DATA of phantoms, a table with its image, and a folder that holds neither."""
    folder = tmp_path_factory.mktemp("mistakes")
    runs.here(folder / "run", phantom_data, "total_steps=1", config="tests/training/tiny.py:clip", cache=compile_cache)
    (folder / "own").mkdir()
    (folder / "notes").mkdir()
    PIL.Image.fromarray(np.arange(4096, dtype=np.uint8).reshape(64, 64)).save(folder / "own/a.png")
    return {"run": folder / "run", "data": phantom_data, "own": folder / "own", "notes": folder / "notes"}


@pytest.fixture
def places(made, tmp_path):
    """With an OUT that is not there yet."""
    return {**made, "out": tmp_path / "out"}


def ask(command, words, places, capsys):
    """(exit status, lines on stderr) of a command in this process; words hold {names} of places."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as leaving:
        cli.run(importlib.import_module(command).main, [word.format(**places) for word in words])
    return leaving.value.code, capsys.readouterr().err.splitlines()


def table(places, text):
    """Replaces the table."""
    (places["own"] / "studies.csv").write_text(text)


TRAIN = ["--config=tests/training/tiny.py", "--workdir={out}", "--config.data.dir={data}"]
BUILD = ["--config=configs/data/table.py", "--config.table.path={own}/studies.csv", "--out={out}/data",
         "--config.workers=1"]
PREDICT = ["--checkpoint={run}", "{own}/a.png", "--prompt=edema", "--out={out}/predicted"]
RECORDS = ["--checkpoint={run}", "--data_dir={data}", "--out={out}/eval", "--bootstrap=0"]
MISTAKES = {
    "misspelt flag": ("lgdea_jax.predict", ["--chekpoint={run}", *PREDICT[1:]], "",
                      ["unknown argument '--chekpoint'", "did you mean '--checkpoint'?"]),
    "wrong path of a table": ("data_prep.build", ["--config=configs/data/table.py", "--out={out}/data",
                                                  "--config.table.path={own}/studeis.csv"], "",
                              ["studeis.csv", "did you mean", "studies.csv"]),
    "wrong path of a data set": ("lgdea_jax.train", [*TRAIN[:2], "--config.data.dir={out}/nothing"], "",
                                 ["no data set", "data_prep.build"]),
    "missing column": ("data_prep.build", BUILD, TABLE.replace("subject_id,split", "patient,part"),
                       ["no column 'subject_id', 'split'", "patient", "give these names to yours",
                        "--config.table.split=0.8,0.1,0.1"]),
    "a folder that is no run": ("lgdea_jax.predict", ["--checkpoint={notes}", *PREDICT[1:]], "",
                                ["no checkpoints in", "lgdea_jax.train"]),
    "data set for a run": ("lgdea_jax.eval.records", ["--checkpoint={data}", *RECORDS[1:]], "", ["no checkpoints in"]),
    "run for a data set": ("lgdea_jax.eval.records", ["--checkpoint={run}", "--data_dir={run}", *RECORDS[2:]], "",
                           ["data_prep.build"]),
    "config typo": ("lgdea_jax.train", [*TRAIN, "--config.totl_steps=3"], "", ["did you mean 'total_steps'?"]),
    "misspelt config": ("lgdea_jax.train", ["--config=configs/phantm.py", "--workdir={out}"], "",
                        ["did you mean 'configs/phantom.py'?"]),
    "TRUE as a label": ("data_prep.build", BUILD, TABLE.replace(",0\n", ",TRUE\n"),
                        ["row 2", "label:Edema", "'TRUE'", "must be 1, 0, -1"]),
    "duplicate ids": ("data_prep.build", BUILD, TABLE + TABLE.splitlines()[1] + "\n",
                      ["row 3: study_id and image_id", "of row 2", "remove one"]),
    "a Windows path": ("data_prep.build", BUILD, TABLE.replace("a.png", r"C:\images\a.png"),
                       ["Windows drive", "relative to the table"]),
    "unknown data set": ("lgdea_jax.eval.ms_cxr", RECORDS[:3], "", ["ms_cxr", "phantom"]),
    "unknown config of a data set": ("data_prep.build", ["--config=configs/data/mimic.py", "--out={out}/data"], "",
                                     ["did you mean 'configs/data/mimic_cxr.py'?"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_usual_mistake_is_a_line_with_the_remedy(mistake, places, capsys):
    command, words, text, parts = MISTAKES[mistake]
    table(places, text or TABLE)
    status, lines = ask(command, words, places, capsys)
    [line] = [line for line in lines if line.startswith("error: ")]
    assert status == 2 and lines[-1] == line and [part for part in parts if part not in line] == []


def test_a_missing_extra_is_a_line_with_its_pip_line(places, capsys, monkeypatch):
    (places["own"] / "a.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 40)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    table(places, TABLE.replace("a.png", "a.dcm"))
    status, lines = ask("data_prep.build", BUILD, places, capsys)
    assert status == 2 and lines[-1].startswith("error: ") and 'pip install -e ".[dicom]"' in lines[-1]


@pytest.mark.parametrize("command,words", [
    ("lgdea_jax.train", TRAIN), ("data_prep.build", BUILD), ("lgdea_jax.predict", PREDICT),
    ("lgdea_jax.eval.records", RECORDS), ("lgdea_jax.report", ["{run}", "--html={out}/page.html"])])
def test_a_read_only_folder_is_a_line(command, words, places, capsys, monkeypatch):
    """Read-only by a file system that refuses: the tests may run as root, whom permissions do not stop."""
    out, real = places["out"], Path.mkdir

    def refuse(path):
        if Path(path).is_relative_to(out):
            raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "mkdir", lambda path, *args, **options: (refuse(path), real(path, *args, **options))[1])
    table(places, TABLE)
    status, lines = ask(command, words, places, capsys)
    assert status == 2 and lines[-1].startswith("error: ") and "read-only" in lines[-1] and str(out) in lines[-1]


def test_a_device_without_memory_is_a_line(places, capsys, monkeypatch):
    from jax.errors import JaxRuntimeError

    from lgdea_jax.training import loop

    def fail(*args, **options):
        raise JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8589934592 bytes.")

    monkeypatch.setattr(loop, "compile_step", fail)
    status, lines = ask("lgdea_jax.train", [*TRAIN, "--config.total_steps=1"], places, capsys)
    assert status == 2 and "out of memory" in lines[-1] and "--config.dry_run" in lines[-1]
