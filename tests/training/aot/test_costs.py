"""Costs of compiled programs, worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgdea_jax.training.aot import costs, flops, hlo
from tests.training.aot import programs


def cost(name, *others):
    (row,) = costs.rows(programs.program(name, *others), programs.DEVICE)
    return row


def test_shapes():
    scalar, tiled = hlo.read_array("(f32[], /*index=1*/bf16[3,200,130]{1,2,0:T(8,128)(2,1)S(1)})")
    assert (scalar.dims, scalar.bytes, scalar.main_bytes) == ((), 4, 4)
    assert (tiled.dims, tiled.order, tiled.tile, tiled.space) == ((3, 200, 130), (1, 2, 0), (8, 128), 1)
    assert tiled.elements == 3 * 200 * 130
    assert tiled.bytes == 3 * 136 * 256 * 2  # 130 rows to 136, 200 columns to 256.
    assert tiled.main_bytes == 0  # On the chip.
    assert [array.bytes for array in hlo.read_array("(pred[9]{0}, token[], s4[3]{0}, f8e4m3fn[5]{0})")] == [9, 0, 2, 5]


def test_a_product():
    row = cost(programs.PRODUCT)
    assert row.flops == {"bf16": 2 * 8 * 16 * 4}
    assert row.bytes == 2 * (8 * 16 + 16 * 4 + 8 * 4)
    assert row.seconds == pytest.approx(row.bytes / 1e9)  # The memory is the slower here.
    program = programs.program(programs.PRODUCT)
    assert program.line(row.item, row.computation) == "lgdea_jax/models/vit.py:40"  # Not flax's, nor the command's.
    assert row.item.op_name == "jit(f)/jvp(ViT)/dot_general"


def test_precise_products_take_longer():
    plain = programs.PRODUCT.replace("bf16", "f32")
    assert set(cost(plain).flops) == {"f32"}
    precise = plain.replace("metadata", "operand_precision={highest,highest}, metadata")
    assert set(cost(precise).flops) == {"f32_highest"}


def test_a_loop_counts_as_often_as_it_runs():
    rows = {row.item.name: row for row in costs.rows(programs.program(*programs.LOOP), programs.DEVICE)}
    assert {name: row.times for name, row in rows.items()} == {"copy": 12, "next": 12, "less": 12}
    assert rows["copy"].bytes == 12 * 2 * 4 * 8 * 4
    entry, *others = programs.LOOP
    stated = entry.replace(', backend_config={"known_trip_count":{"n":"12"}}', "")
    assert {row.times for row in costs.rows(programs.program(stated, *others), programs.DEVICE)} == {5}
    unknown = [text.replace("direction=LT", "direction=NE") for text in others]
    program = programs.program(stated, *unknown)
    assert {row.times for row in costs.rows(program, programs.DEVICE)} == {1} and costs.unknown_loops(program) == 1


def test_only_the_part_that_is_read_counts():
    assert cost(*programs.SLICED).bytes == 2 * 4 * 8 * 4 + 4  # A slice in, the same out, and the index.


def test_an_update_in_place_counts_its_new_part():
    row = cost("""
  %stack = f32[12,4,8]{2,1,0} parameter(0)
  %new = f32[1,4,8]{2,1,0} parameter(1)
  ROOT %put = f32[12,4,8]{2,1,0} fusion(%stack, %new), kind=kLoop, calls=%write
""", """%write (s: f32[12,4,8], n: f32[1,4,8]) -> f32[12,4,8] {
  %s = f32[12,4,8]{2,1,0} parameter(0)
  %n = f32[1,4,8]{2,1,0} parameter(1)
  %zero = s32[] constant(0)
  ROOT %written = f32[12,4,8]{2,1,0} dynamic-update-slice(%s, %n, %zero, %zero, %zero)
}""")
    assert row.bytes == 2 * 4 * 8 * 4


def test_a_scatter_counts_what_it_writes():
    row = cost("""
  %table = f32[1000,8]{1,0} parameter(0)
  %at = s32[5,1]{1,0} parameter(1)
  %new = f32[5,8]{1,0} parameter(2)
  ROOT %put = f32[1000,8]{1,0} fusion(%table, %at, %new), kind=kCustom, calls=%write
""", """%write (t: f32[1000,8], i: s32[5,1], n: f32[5,8]) -> f32[1000,8] {
  %t = f32[1000,8]{1,0} parameter(0)
  %i = s32[5,1]{1,0} parameter(1)
  %n = f32[5,8]{1,0} parameter(2)
  ROOT %written = f32[1000,8]{1,0} scatter(%t, %i, %n), to_apply=%replace
}""")
    assert row.bytes == 2 * 5 * 8 * 4 + 5 * 4


def test_room_of_a_library_is_no_traffic():
    row = cost("""
  %a = bf16[8,16]{1,0} parameter(0)
  %b = bf16[16,4]{1,0} parameter(1)
  ROOT %gemm = (bf16[8,4]{1,0}, s8[33554432]{0}) custom-call(%a, %b), custom_call_target="__cublas$lt$matmul", backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]},"precision_config":{"operand_precision":["DEFAULT","DEFAULT"]}}}
""")  # noqa: E501
    assert (row.flops, row.bytes) == ({"bf16": 2 * 8 * 16 * 4}, 2 * (8 * 16 + 16 * 4 + 8 * 4))


def test_of_alternatives_the_dearest():
    branch = """%BRANCH (x: f32[SIZE]) -> f32[SIZE] {
  %x = f32[SIZE]{0} parameter(0)
  ROOT %negative = f32[SIZE]{0} negate(%x)
}"""
    row = cost("""
  %which = s32[] parameter(0)
  %small = f32[10]{0} parameter(1)
  %large = f32[100]{0} parameter(2)
  ROOT %either = f32[] conditional(%which, %small, %large), branch_computations={%cheap, %dear}
""", branch.replace("BRANCH", "cheap").replace("SIZE", "10"), branch.replace("BRANCH", "dear").replace("SIZE", "100"))
    assert row.bytes == 800


def brute_force(image, kernel, *, stride, low, high, dilate):
    """Products of an image's elements and a kernel's, one feature, counted one by one."""
    wide = np.zeros((image - 1) * dilate + 1 + low + high, bool)
    wide[low:low + (image - 1) * dilate + 1:dilate] = True
    starts = range(0, len(wide) - kernel + 1, stride)
    return sum(int(wide[start:start + kernel].sum()) for start in starts), len(starts)


@pytest.mark.parametrize(("image", "kernel", "stride", "low", "high", "dilate"),
                         [(7, 3, 1, 1, 1, 1), (8, 3, 2, 0, 1, 1), (5, 3, 1, 2, 2, 2), (6, 1, 1, 0, 0, 1)])
def test_convolutions_count_real_products_only(image, kernel, stride, low, high, dilate):
    hits, out = brute_force(image, kernel, stride=stride, low=low, high=high, dilate=dilate)
    window = f"size={kernel}x1 stride={stride}x1 pad={low}_{high}x0_0 lhs_dilate={dilate}x1"
    found = flops.convolution((2, image, 9, 4), (kernel, 1, 4, 5), (2, out, 9, 5), "b01f_01io->b01f",
                              flops.read_window(window))
    assert found == 2 * 2 * 9 * 4 * 5 * hits


@pytest.mark.parametrize(("target", "line"), [
    ("__cudnn$convForward", "(f32[2,8,8,4]{3,2,1,0}, u8[0]{0}) custom-call(%x, %w)"),
    ("__cudnn$convBackwardInput", "(f32[2,8,8,3]{3,2,1,0}, u8[0]{0}) custom-call(%y, %w)"),
    ("__cudnn$convBackwardFilter", "(f32[4,3,3,3]{3,2,1,0}, u8[0]{0}) custom-call(%x, %y)")])
def test_the_three_convolutions_of_cudnn_cost_the_same(target, line):
    row = cost(f"""
  %x = f32[2,8,8,3]{{3,2,1,0}} parameter(0)
  %w = f32[4,3,3,3]{{3,2,1,0}} parameter(1)
  %y = f32[2,8,8,4]{{3,2,1,0}} parameter(2)
  ROOT %conv = {line}, window={{size=3x3 pad=1_1x1_1}}, dim_labels=b01f_o01i->b01f, custom_call_target="{target}"
""")
    assert row.flops == {"f32": 2 * 2 * 3 * 4 * (3 * 8 - 2) ** 2}  # The first and the last row miss one product each.


def test_cudnn_attention():
    row = cost("""
  %q = bf16[2,16,3,8]{3,2,1,0} parameter(0)
  ROOT %fmha = (bf16[2,3,16,8]{3,1,2,0}, u8[0]{0}) custom-call(%q, %q, %q), custom_call_target="__cudnn$fmhaSoftmaxBackward", backend_config={"cudnn_fmha_backend_config":{"intermediate_tensor_shape":{"element_type":"BF16","dimensions":["2","3","16","16"],"tuple_shapes":[]}}}
""")  # noqa: E501
    assert row.flops == {"bf16": 5 * 2 * 2 * 3 * 16 * 16 * 8}


def test_products_that_a_function_needs():
    def loss(weights, x):
        def layer(x, w):
            return jnp.tanh(x @ w), None
        x, _ = jax.lax.scan(jax.checkpoint(layer), x, weights)
        image = jax.lax.conv_general_dilated(x[:, :, None, None], jnp.ones((1, 8, 1, 1)), (1, 1), "SAME")
        return jax.lax.cond(x[0, 0] > 0, lambda y: (y @ y.T).sum(), jnp.sum, x) + image.sum()

    shapes = (jax.ShapeDtypeStruct((3, 8, 8), jnp.float32), jax.ShapeDtypeStruct((4, 8), jnp.float32))
    assert flops.needed(jax.make_jaxpr(loss)(*shapes)) == 3 * 2 * 4 * 8 * 8 + 2 * 4 * 8 + 2 * 4 * 8 * 4
