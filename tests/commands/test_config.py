"""Config flags: types kept, groups and unknown keys refused with the nearest name, leftovers of config files."""

import errno
import shutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from lgdea_jax import cli
from lgdea_jax.errors import DEVICE_MEMORY, UserError

FILE = """
from ml_collections import ConfigDict

def get_config(arg=None):
    config = ConfigDict({"count": 3, "rate": 0.5, "name": "x", "on": False, "none": None, "empty": (),
                         "pair": (0.5, 1.0), "names": ("a",), "group": {"inner": 1, "deep": {"leaf": 2}}})
    config.arg = arg or ""
    return config
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "x.py"
    path.write_text(FILE)
    return str(path)


def load(file, *overrides):
    return cli.load_config([f"--config={file}", *(f"--config.{o}" for o in overrides)])[0]


def fresh():
    space = {}
    exec(FILE, space)
    return space["get_config"]()


@given(st.integers(-10**9, 10**9), st.floats(allow_nan=False), st.booleans(),
       st.text(st.characters(exclude_categories=("Cs", "Cc"))))
def test_values_keep_their_type(count, rate, on, name):
    config = fresh()
    for key, value in (("count", count), ("rate", rate), ("on", on), ("name", name), ("group.deep.leaf", count)):
        cli.set_override(config, key, str(value))
    assert (config.count, config.rate, config.on, config.name, config.group.deep.leaf) == (count, rate, on, name, count)
    assert (type(config.count), type(config.rate), type(config.on)) == (int, float, bool)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4))
def test_tuples_keep_the_type_of_their_elements(values):
    for text in (",".join(map(str, values)), str(tuple(values)), str(values)):
        config = fresh()
        cli.set_override(config, "pair", text)
        assert config.pair == tuple(values) and all(type(value) is float for value in config.pair)


def test_forms_of_values(file):
    config = load(file, "pair=1,2", "names=b,c", "empty=DIR:2,OTHER", "none=4", "on=True", "group.inner=7")
    assert config.pair == (1.0, 2.0) and config.names == ("b", "c") and config.empty == ("DIR:2", "OTHER")
    assert (config.none, config.on, config.group.inner) == (4, True, 7)
    assert load(file, "names=", "none=text").names == () and load(file, "none=text").none == "text"
    assert load(f"{file}:mode").arg == "mode"
    config, rest = cli.load_config(["--config", file, "--config.count", "5", "--workdir=x", "more"])
    assert config.count == 5 and rest == ["--workdir=x", "more"]
    assert config.is_locked


@pytest.mark.parametrize("override, message", [
    ("cuont=1", "unknown config key 'cuont' (did you mean 'count'?)"),
    ("group.iner=1", "did you mean 'group.inner'"),
    ("count.inner=1", "unknown config key"),
    ("group=1", "is a group: set one of group."),
    ("count=1.5", "'1.5' is not of type int"),
    ("count=", "not of type int"),
    ("rate=fast", "'fast' is not of type float"),
    ("on=maybe", "'maybe' is not of type bool"),
    ("pair=a,b", "not of type tuple"),
    ("pair=(1,", "not of type tuple"),
    ("pair=(1)", "not of type tuple"),
    ("count", "--config.count needs a value"),
])
def test_mistakes_are_named(file, override, message):
    with pytest.raises(UserError) as error:
        load(file, override)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="--config=FILE is needed"):
        cli.load_config(["--workdir=x"])
    with pytest.raises(UserError, match=r"no config file 'configs/phantm.py' \(did you mean 'configs/phantom.py'\?\)"):
        cli.load_config(["--config=configs/phantm.py"])
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UserError, match="defines no get_config"):
        cli.load_config([f"--config={tmp_path / 'empty.py'}"])


def test_our_configs_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.read_config("configs/phantom.py").image.size == 64


def test_keys_that_nobody_reads_are_refused():
    good = cli.read_config("configs/phantom.py")
    cli.check_keys(good, like="common.py")
    extra = cli.read_config("configs/phantom.py")
    extra.optim.wieght_decay = 1.0
    with pytest.raises(UserError, match=r"unknown config key 'optim.wieght_decay' \(did you mean 'weight_decay'\?\)"):
        cli.check_keys(extra, like="common.py")
    lacking = cli.read_config("configs/phantom.py")
    del lacking.augment.crop
    with pytest.raises(UserError, match=r"no key 'augment\.crop'"):
        cli.check_keys(lacking, like="common.py")
    flat = ConfigDict({**good.to_dict(), "optim": 3})
    with pytest.raises(UserError, match="'optim' is a group"):
        cli.check_keys(flat, like="common.py")


@pytest.mark.parametrize("raised, status, line", [
    (UserError("no such thing"), 2, "error: no such thing\n"),
    (OSError(errno.ENOSPC, "No space left", "file"), 2, "error: no space left on the disk: file\n"),
    (OSError(errno.EROFS, "Read-only", "file"), 2, "error: the file system is read-only: file\n"),
    (PermissionError(errno.EACCES, "denied", "file"), 2, "error: no permission: file\n"),
    (PermissionError(errno.EPERM, "denied", "file"), 2, "error: not permitted: file\n"),
    (NotADirectoryError(errno.ENOTDIR, "x", "a/b"), 2, "error: a file stands where a folder is needed: a/b\n"),
    (OSError(errno.EIO, "x"), 2, "error: the disk or the file system reports an input/output error\n"),
    (MemoryError(), 2, "error: out of memory\n"),
    (ValueError("WRITE: x [OS error 28: No space left on device]"), 2, "error: no space left on the disk\n"),
    (type("JaxRuntimeError", (RuntimeError,), {})("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."), 2,
     f"error: {DEVICE_MEMORY}\n"),
    (KeyboardInterrupt(), 130, "stopped\n"),
    (None, 0, ""),
])
def test_exit_statuses(raised, status, line, capsys):
    def main(argv):
        if raised is not None:
            raise raised

    with pytest.raises(SystemExit) as exit_:
        cli.run(main, [])
    assert exit_.value.code == status and capsys.readouterr().err == line


def test_our_own_faults_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        cli.run(lambda argv: 1 // 0, [])
    with pytest.raises(OSError, match="other"):
        cli.run(lambda argv: (_ for _ in ()).throw(OSError(errno.ENOENT, "other")), [])

    def main(argv):
        try:
            raise OSError(errno.ENOSPC, "full")
        except OSError:
            raise KeyError("ours") from None

    with pytest.raises(KeyError):
        cli.run(main, [])


def test_a_config_of_the_users_own(tmp_path):
    """A copy works in any folder; what is wrong in it is one line with its place."""
    copy = tmp_path / "mine.py"
    shutil.copy("configs/phantom.py", copy)
    assert cli.read_config(str(copy)).to_dict() == cli.read_config("configs/phantom.py").to_dict()
    for text, line in (("def get_config(arg=None):\n  return (\n", r"broken0\.py, line \d: "),
                       ("x = 1\nimport no_such_module\n", r"broken1\.py, line 2: ModuleNotFoundError: No module named"),
                       ("def get_config(arg=None):\n    return nothing\n", r"broken2\.py, line 2: NameError: name")):
        file = tmp_path / f"broken{line[6]}.py"
        file.write_text(text)
        with pytest.raises(UserError, match=line) as caught:
            cli.read_config(str(file))
        assert "\n" not in str(caught.value)


def test_importing_the_package_imports_nothing():
    code = "import sys, lgdea_jax, lgdea_jax.cli; print([m for m in ('jax', 'numpy', 'flax') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
