"""Packaging of LGDEA-JAX: the core install is light, everything else is an extra."""

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "([^"]+)"', (HERE / "lgdea_jax/__init__.py").read_text(encoding="utf-8"), re.M)[1]

CORE = [
    "jax>=0.10,<0.13",
    "flax>=0.12.8,<0.13",
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12.8,<0.13",
    "grain>=0.2.18,<0.3",
    "array-record>=0.8.3,<0.9",
    "ml-collections>=1.1,<2",
    "tensorflow-datasets>=4.9.10,<4.10",
    # 1.21 needs protobuf 6, which breaks TFDS beside google-generativeai (protobuf < 6).
    "tensorflow-metadata==1.17.3",
    "protobuf>=5.29,<6",
    "importlib_resources",
    "transformers>=5.0,<6",
    "tokenizers>=0.22",
    "huggingface_hub>=1.0,<3",
    "safetensors>=0.5",
    "ml_dtypes>=0.5",
    "tensorboardX>=2.6,<3",
    "numpy>=2.0,<3",
    "scipy>=1.13",
    "pillow>=11",
    "jinja2>=3.1,<4",
    "simplejpeg>=1.8",
    "tqdm>=4.66",
    "absl-py>=2.1",
]

EXTRAS = {
    "data": ["pydantic>=2.7,<3", "blosc2>=3,<4"],
    "gemini": ["google-generativeai>=0.8.6,<0.9"],
    "genai": ["google-genai>=3.4,<4"],
    "openai": ["openai>=1.40,<4"],
    "local": ["xllamacpp>=2026.10"],
    "beam": ["apache-beam>=2.70,<3"],
    "dicom": ["pydicom>=3.0,<4", "pylibjpeg>=2.0,<3", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg>=2.0"],
    "ct": ["nibabel>=5.2,<6", "blosc2>=3,<4"],
    "cuda12": ["jax[cuda12]>=0.10,<0.13"],
    "cuda13": ["jax[cuda13]>=0.10,<0.13"],
    "tpu": ["jax[tpu]>=0.10,<0.13"],
    # Compilers for devices that are not at hand; JAX's own extras pin the versions that fit it.
    "aot": ["jax[tpu,cuda12]>=0.10,<0.13"],
    "colab": ["matplotlib>=3.8", "ipywidgets>=8"],  # For colabs/ and the plots of benchmarks/.
    "probe": ["scikit-learn>=1.4"],  # For --probe of the evaluation scripts.
    "wandb": ["wandb>=0.22,<1"],
    "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.7,<10"],
}
EXTRAS["test"] = [
    *EXTRAS["data"], *EXTRAS["dicom"], *EXTRAS["ct"], *EXTRAS["gemini"], *EXTRAS["genai"], *EXTRAS["openai"],
    *EXTRAS["local"], *EXTRAS["beam"], *EXTRAS["docs"], *EXTRAS["probe"], "pytest>=8", "pytest-xdist>=3.5",
    "hypothesis>=6.100", "ruff>=0.8", "matplotlib>=3.8", "torch==2.13.0", "SimpleITK>=2.4", "nbclient>=0.10",
    "nbformat>=5.10", "ipykernel>=6.29", "setuptools>=77", "import-linter>=2.3", "vulture>=2.14",
]

PACKAGES = [
    *find_packages(include=["lgdea_jax", "lgdea_jax.*", "data_prep", "data_prep.*"]),
    # The configs live at the top of the checkout but install inside the package, so that no
    # top-level name as general as `configs` is taken.
    "lgdea_jax.configs", "lgdea_jax.configs.data",
]

# What the package reads from elsewhere in the checkout, and where it finds it once installed.
COPIED = {"benchmarks/published.csv": "lgdea_jax/published.csv"}


class BuildPy(build_py):
    """Adds COPIED to a wheel; an editable install reads the checkout's own."""

    def run(self) -> None:
        """As of setuptools."""
        super().run()
        if not self.editable_mode:
            for source, target in COPIED.items():
                self.copy_file(str(HERE / source), str(Path(self.build_lib) / target))


setup(
    name="lgdea-jax",
    version=VERSION,
    description="Diagnostic evidence alignment for medical vision-language pretraining, in JAX/Flax.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=PACKAGES,
    package_dir={"lgdea_jax.configs": "configs"},
    package_data={"lgdea_jax": ["py.typed", "findings/*.json", "pages/templates/*"],
                  "data_prep": ["extract/llm/prompts/*", "extract/llm/*.json"]},
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["lgdea = lgdea_jax.commands:main"]},
    cmdclass={"build_py": BuildPy},
    classifiers=[
        *(f"Programming Language :: Python :: {version}" for version in ("3", "3.11", "3.12", "3.13", "3.14")),
        "Intended Audience :: Science/Research",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
