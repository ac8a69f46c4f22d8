"""No images x reports array, in the program or in memory; time in proportion to the items."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.speed import relations as benchmark
from lgdea_jax.relations.graph import image_targets, relation_graph, relations_between, report_targets
from lgdea_jax.relations.rows import dense_rows
from lgdea_jax.relations.seeds import seed_edges

CASE = benchmark.Case(rows=40_000, anchors=64, evidence=16, pairs=0.01, order=3, top=0, repeats=3)


@pytest.mark.parametrize("kind", ["anchors", "sparse", "knn"])
def test_no_program_makes_an_array_of_images_by_reports(kind):
    rows, width = 20_000, 8
    features = jax.ShapeDtypeStruct((rows, width), jnp.float32)
    pairs = jax.ShapeDtypeStruct((200,), jnp.int32)

    def everything(images, reports, image_pairs, report_pairs):
        seeds = seed_edges(image_pairs, report_pairs, num_images=rows, num_reports=rows)
        graph = relation_graph("knn" if kind == "knn" else "anchors", seeds, images, reports, alpha=0.5,
                                         order=2, key=jax.random.key(0), num_landmarks=64, neighbours=4,
                                         top=8 if kind == "sparse" else None)
        batch = jnp.arange(64)
        return (image_targets(graph, reports), report_targets(graph, images),
                relations_between(graph, batch, batch))

    # 1,024 x 1,024 is the block of the neighbours' search, 64 x rows what an assignment or a batch may take.
    largest = benchmark.largest_array(everything, features, features, pairs, pairs)
    assert rows * 8 <= largest <= max(64 * rows, 1024 * (1024 + 4)) < rows**2 / 100


def test_the_search_for_large_arrays_looks_into_loops_and_calls():
    @jax.jit
    def hidden(x):
        return jax.lax.fori_loop(0, 2, lambda _, y: y + jnp.sum(y[:, None] * y[None, :]), x)

    assert benchmark.largest_array(hidden, jnp.ones(1000)) == 1000**2


def test_memory_is_far_from_images_by_reports():
    row = benchmark.in_fresh_process(CASE)
    assert row["peak_bytes"] - row["input_bytes"] - row["start_bytes"] < 0.3e9 < CASE.rows**2 * 4 / 20
    assert row["temporary_bytes"] < 20e6


def test_the_dense_form_of_the_benchmark_agrees():
    case = benchmark.dataclasses.replace(CASE, rows=300, pairs=0.1, top=8)
    inputs = benchmark.make_inputs(case)
    run, _ = benchmark.factored(inputs, case.order)
    dense = (inputs[0], *(dense_rows(z) for z in inputs[1:3]), *inputs[3:])
    expected = jax.jit(functools.partial(benchmark.dense_both_directions, order=case.order))(*dense)
    for one, other in zip(jax.tree.leaves(run()), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    for z in dense[1:3]:
        np.testing.assert_allclose(jnp.sum(z, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(np.sum(np.asarray(dense[1]) > 0, axis=1), 8)  # Distinct anchors in every row.


@pytest.mark.slow
@pytest.mark.parametrize("top", [0, 8])
def test_time_and_memory_grow_with_the_items(top):
    rows = [benchmark.in_fresh_process(benchmark.dataclasses.replace(CASE, rows=10_000 * 2**n, top=top, repeats=5))
            for n in range(5)]
    # Processor time of the fastest repeat: other processes must not decide. 1.05 is for the large sizes of the
    # benchmark; here a repeat takes milliseconds.
    assert benchmark.exponent(rows, "process_seconds") < 1.15
    above = [row["peak_bytes"] - row["input_bytes"] for row in rows]
    results = 2 * (CASE.evidence + 1) * 4 * rows[-1]["rows"]
    assert above[-1] - above[0] < 3 * results + 40e6


def test_the_command_prints_a_table_and_goals(tmp_path, capsys):
    status = benchmark.main([f"--out={tmp_path}", "--rows=2000", "--anchors=32", "--evidence=8", "--top=0",
                             "--doublings=0", "--dense=500", "--repeats=1"])
    assert status == 0
    printed = capsys.readouterr().out
    assert "| arrays | 2,000 |" in printed and "times faster than dense at 500" in printed
    written = benchmark.json.loads((tmp_path / "relations.json").read_text())
    assert [row["rows"] for row in written["measurements"]] == [2000, 500]
    assert written["goals"]["arrays: GB above the inputs and the started process"]["limit"] == 0.5
    assert written["goals"]["arrays: GB above the inputs"]["limit"] == 0.5
    assert (tmp_path / "table.md").read_text() == printed
