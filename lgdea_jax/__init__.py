"""LGDEA-JAX: diagnostic evidence alignment for medical vision-language pretraining.

    import lgdea_jax

    model = lgdea_jax.load("RUN")  # The model of a run, for images and volumes of your own.
    model = lgdea_jax.load("hf://OWNER/NAME")  # One that `lgdea push` uploaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"  # The one source: setup.py reads it.
__all__ = ["__version__", "load"]

if TYPE_CHECKING:
    from lgdea_jax.inference.model import load


def __getattr__(name: str) -> Any:
    # PEP 562: importing the package, which every command does, must not import what only `load` needs.
    if name == "load":
        from lgdea_jax.inference.model import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
