"""Batch scripts and container files: they parse, and what they name exists. SLURM and Docker are not run here."""

import re
import runpy
import shlex
import subprocess

import pytest

from lgdea_jax import cli
from tests.docs.pages import ROOT, read

SCRIPTS = sorted((ROOT / "docs/guides/slurm").glob("*.sbatch"))
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
INSTRUCTIONS = {"FROM", "ARG", "ENV", "COPY", "RUN", "USER", "WORKDIR", "ENTRYPOINT", "CMD"}


def options(script):
    """{option: value} of its #SBATCH lines."""
    return dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in read(script).splitlines()
                if line.startswith("#SBATCH"))


def instructions(dockerfile):
    """[(instruction, its argument)], with continued lines joined and comments left out."""
    text = "\n".join(line for line in read(dockerfile).splitlines() if not line.startswith("#"))
    return [tuple(line.split(None, 1)) for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def test_they_are_there():
    assert [path.stem for path in SCRIPTS] == ["four_nodes", "one_node"]
    assert [path.name for path in DOCKERFILES] == ["cpu.Dockerfile", "cuda12.Dockerfile"]
    page = read(ROOT / "docs/guides/cluster.md")
    assert all(f"slurm/{path.name}" in page for path in SCRIPTS) and all(path.name in page for path in DOCKERFILES)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_batch_scripts(path):
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    text = read(path)
    assert text.startswith("#!/bin/bash\n") and "set -euo pipefail" in text
    # SLURM stops reading its lines at the first command.
    assert text.rindex("#SBATCH") < text.index("set -euo")
    given = options(path)
    assert {"nodes", "gpus-per-node", "cpus-per-task", "mem", "time", "output"} <= set(given)
    # Some time between the signal and the end, for the run to save itself.
    assert int(re.fullmatch(r"TERM@(\d+)", given["signal"])[1]) >= 60
    # Names of variables that the header's command sets, and no others.
    set_by_user = set(re.findall(r"(\w+)=", re.search(r"--export=(\S+)", text)[1]))
    assert set(re.findall(r"\$\{?([A-Z]+)", text)) - {"VENV"} == set_by_user


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_command_of_a_batch_script_parses(path):
    line = re.search(r"python -m lgdea_jax\.train (.*)", read(path).replace("\\\n", " "))[1]
    values = {"CONFIG": "configs/lgdea_mimic.py", "RUN": "run", "DATA": "data"}
    words = shlex.split(re.sub(r"\$([A-Z]+)", lambda found: values[found[1]], line))
    config, rest = cli.load_config(words)
    assert [word.split("=")[0] for word in rest] == ["--workdir"] and config.data.dir == "data"
    given = options(path)
    tasks = int(given["nodes"]) * int(given.get("ntasks-per-node", given.get("ntasks", 1)))
    if tasks > 1:  # JAX gives a process under srun one device: that of its local number.
        assert given["ntasks-per-node"] == given["gpus-per-node"] and "gpus-per-task" not in given
        assert config.distributed.num_processes == 0 and config.log.watchdog_seconds > 0
    else:
        assert config.distributed.num_processes == 1


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_container_files(path, monkeypatch):
    monkeypatch.setattr("setuptools.setup", lambda **_: None)
    monkeypatch.setattr("sys.argv", ["setup.py"])
    setup = runpy.run_path(str(ROOT / "setup.py"))
    lines = instructions(path)
    assert {name for name, _ in lines} <= INSTRUCTIONS and lines[0][0] == "FROM"
    found = dict(lines)
    image, tag = found["FROM"].split(":")
    assert image == "python" and re.fullmatch(r"3\.\d+-slim", tag)  # A version, never `latest`.
    extras = found["ARG"].removeprefix("EXTRAS=").split(",")
    assert set(extras) <= set(setup["EXTRAS"]) and {"data", "dicom", "ct"} <= set(extras)
    assert ("cuda12" in extras) == (path.stem == "cuda12") == ("JAX_PLATFORMS=cpu" not in found["ENV"])
    assert 'pip install "/opt/lgdea-jax[${EXTRAS}]"' in found["RUN"] and "PIP_NO_CACHE_DIR=1" in found["ENV"]
    assert found["ENTRYPOINT"] == '["lgdea"]' and "lgdea = lgdea_jax.commands:main" in read(ROOT / "setup.py")
    # The last user is not root.
    assert [argument for name, argument in lines if name == "USER"][-1] == "user"
    assert [name for name, _ in lines].index("RUN") < [name for name, _ in lines].index("USER")
    # What the image holds is what .dockerignore lets through: all that setup.py reads, and no data.
    kept = {line[1:] for line in read(ROOT / ".dockerignore").splitlines() if line.startswith("!")}
    assert {"setup.py", "pyproject.toml", "README.md", "configs", *setup["COPIED"]} <= kept
    assert all((ROOT / name).exists() for name in kept) and "*" in read(ROOT / ".dockerignore").splitlines()
    assert not kept & {"data", "runs", ".git", "pretrained"}
