"""Fixtures that several test packages share: a small phantom data set and a cache of compiled programs."""

import os

# Tests spend most of their time compiling tiny programs: compile them fast rather than well. Before JAX is imported.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

import pytest

# Folders whose tests compile many tiny functions and run each of them a few times.
TINY_FUNCTIONS = {"losses", "models", "relations"}
STUDIES = {"train": 40, "validation": 12, "test": 8}


@pytest.fixture(scope="session")
def phantom_data(tmp_path_factory):
    """A data set of 60 phantom studies at 64 px; read it only."""
    from data_prep import build
    from lgdea_jax import cli

    folder = tmp_path_factory.mktemp("phantom") / "data"
    config = cli.read_config("configs/data/phantom.py")
    for split, studies in STUDIES.items():
        config.phantom[split] = studies
    config.image_size, config.workers, config.shard_studies = 64, 1, 20
    config.tokenizer.vocab_size = 400
    build.build(config, folder, progress=False)
    return folder


@pytest.fixture(scope="session")
def phantom_ct_data(tmp_path_factory):
    """A data set of 48 phantom CT studies with three sets of labels; read it only."""
    from data_prep import build
    from lgdea_jax import cli

    folder = tmp_path_factory.mktemp("phantom_ct") / "data"
    config = cli.read_config("configs/data/phantom_ct.py")
    for split, studies in {"train": 24, "validation": 12, "test": 12}.items():
        config.phantom_ct[split] = studies
    config.workers, config.shard_studies, config.tokenizer.vocab_size = 1, 24, 400
    build.build(config, folder, progress=False)
    return folder


@pytest.fixture(scope="session")
def compile_cache(tmp_path_factory):
    """A folder for JAX's compilation cache that the tests' processes share."""
    import jax

    # Tiny programs compile in less than JAX thinks worth keeping, but there are many of them.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="session", autouse=True)
def parsed_flags():
    """grain reads absl flags, which pytest does not parse."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


@pytest.fixture(autouse=True, scope="module")
def quick_compilation(request):
    """Turns most of XLA's optimisations off in TINY_FUNCTIONS, and back to what they were."""
    if request.path.parent.name not in TINY_FUNCTIONS:
        yield
        return
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
