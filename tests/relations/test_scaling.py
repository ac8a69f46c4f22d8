"""No images x reports array in the program; time in proportion to the items."""

import math
import time

import jax
import jax.extend.core
import jax.numpy as jnp
import pytest

from tests.relations.memory_oracle import make_memory


def largest_array(function, *arguments):
    """The most elements that any array in the traced program has, loops and calls included."""
    largest = 0

    def visit(jaxpr):
        nonlocal largest
        for equation in jaxpr.eqns:
            for variable in equation.outvars:
                largest = max(largest, math.prod(variable.aval.shape))
            for inner in jax.extend.core.jaxprs_in_params(equation.params):
                visit(getattr(inner, "jaxpr", inner))

    visit(jax.make_jaxpr(function)(*arguments).jaxpr)
    return largest


@pytest.mark.parametrize("top", [0, 8])
def test_no_program_makes_an_array_of_images_by_reports(top):
    memory = make_memory(pairs=200, images=20_000, reports=20_000, landmarks=64, top=top)
    aux = jax.eval_shape(memory.blank)
    largest = largest_array(memory.rebuild, aux)
    rows = memory.rows("images")
    assert memory.width * rows <= largest <= 64 * rows < rows**2 / 100


def test_the_search_for_large_arrays_looks_into_loops_and_calls():
    @jax.jit
    def hidden(x):
        return jax.lax.fori_loop(0, 2, lambda _, y: y + jnp.sum(y[:, None] * y[None, :]), x)

    assert largest_array(hidden, jnp.ones(1000)) == 1000**2


@pytest.mark.slow
def test_time_grows_with_the_items():
    seconds = []
    for rows in (20_000, 40_000, 80_000, 160_000):
        memory = make_memory(pairs=200, images=rows, reports=rows, landmarks=64, top=8)
        aux = memory.blank()
        for number, side in enumerate(("images", "reports")):
            key = jax.random.key(number)
            aux[side] = {"evidence": jax.nn.softmax(jax.random.normal(key, aux[side]["evidence"].shape)),
                         "features": jax.random.normal(key, aux[side]["features"].shape),
                         "visited": jnp.ones_like(aux[side]["visited"])}
        rebuild = jax.jit(memory.rebuild)
        jax.block_until_ready(rebuild(aux))
        tries = []
        for _ in range(3):
            start = time.process_time()
            jax.block_until_ready(rebuild(aux))
            tries.append(time.process_time() - start)
        seconds.append(min(tries))
    assert math.log(seconds[-1] / seconds[0], 8) < 1.15
