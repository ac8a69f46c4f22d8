"""The wheel and the source distribution build, hold what the code reads, and work far from the checkout."""

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TINY = ["--config.total_steps=2", "--config.image.size=32", "--config.eval.records=20", "--config.batch.pairs=4",
        "--config.data.dir=data", "--config.compile_cache=", "--config.model.image.resnet.sizes.width=4",
        "--config.model.width=16", "--config.model.prototypes=8"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(wheel, source distribution), built from a copy of what is committed or would be."""
    work = tmp_path_factory.mktemp("package")
    names = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True,
                           stdout=subprocess.PIPE, text=True).stdout.splitlines()
    for name in names:
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            target = work / "checkout" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
    for kind in ("build_wheel", "build_sdist"):
        subprocess.run([sys.executable, "-c", f"from setuptools import build_meta; build_meta.{kind}({str(work)!r})"],
                       cwd=work / "checkout", check=True, stdout=subprocess.DEVNULL, timeout=300)
    return next(work.glob("*.whl")), next(work.glob("*.tar.gz"))


@pytest.mark.slow
def test_the_wheel_holds_what_the_code_reads(built):
    names = set(zipfile.ZipFile(built[0]).namelist())
    wanted = {"lgdea_jax/published.csv", "lgdea_jax/configs/phantom.py", "lgdea_jax/configs/data/table.py",
              "data_prep/extract/llm/prices.json", "lgdea_jax/py.typed"}
    wanted |= {str(path.relative_to(ROOT)) for path in (ROOT / "lgdea_jax/pages/templates").iterdir()}
    prompts = "data_prep/extract/llm/prompts"
    wanted |= {f"{prompts}/{path.name}" for path in (ROOT / prompts).iterdir()}
    wanted |= {str(path.relative_to(ROOT)) for folder in ("lgdea_jax", "data_prep")
               for path in (ROOT / folder).rglob("*.py")}
    wanted |= {f"lgdea_jax/configs/{path.relative_to(ROOT / 'configs')}" for path in (ROOT / "configs").rglob("*.py")}
    assert wanted - names == set()
    assert not [name for name in names if name.startswith(("tests/", "configs/", "benchmarks/"))]
    entries = zipfile.ZipFile(built[0]).read(next(name for name in names if name.endswith("entry_points.txt")))
    assert b"lgdea = lgdea_jax.commands:main" in entries
    with tarfile.open(built[1]) as archive:
        sources = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE", "benchmarks/published.csv", "configs/phantom.py",
            "data_prep/extract/llm/prices.json", "lgdea_jax/py.typed",
            "lgdea_jax/pages/templates/base.html.j2"} <= sources


@pytest.mark.slow
def test_the_installed_wheel_works_far_from_the_checkout(built, tmp_path):
    venv.create(tmp_path / "venv", with_pip=False)
    site = next((tmp_path / "venv/lib").glob("python*/site-packages"))
    # The dependencies of this environment without what its own .pth files add: an editable install stays out.
    (site / "parent.pth").write_text("".join(f"{path}\n" for path in sys.path if path.endswith("site-packages")))
    zipfile.ZipFile(built[0]).extractall(site)
    python = tmp_path / "venv/bin/python"
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"JAX_PLATFORMS": "cpu"}
    home = tmp_path / "elsewhere"
    home.mkdir()

    def run(*words):
        done = subprocess.run([python, *words], cwd=home, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run("-c", "import lgdea_jax, data_prep; print(lgdea_jax.__file__, data_prep.__file__)").split()
    assert all(path.startswith(str(site)) for path in where)
    run("-m", "data_prep.build", "--config=configs/data/phantom.py", "--out=data", "--config.phantom.train=30",
        "--config.phantom.validation=20", "--config.phantom.test=10", "--config.workers=1",
        "--config.tokenizer.vocab_size=400")
    run("-m", "lgdea_jax.train", "--config=configs/phantom.py", "--workdir=run", *TINY)
    run("-m", "lgdea_jax.eval.records", "--checkpoint=run", "--data_dir=data", "--out=out", "--bootstrap=0")
    run("-m", "lgdea_jax.report", "out", "run", "--html=page.html")
    run("-c", "import data_prep.extract.llm.pricing, lgdea_jax.report as r; assert r.PUBLISHED.is_file()")
    assert (home / "page.html").stat().st_size > 10_000
