"""What a compiled program holds: collectives, callbacks, scores of attention, transposes, on programs by hand."""

import json
import subprocess
import sys

import pytest

from lgdea_jax.training.aot import costs, hlo, properties
from tests.training import runs
from tests.training.aot import programs


def summary(name, *others, towers=None):
    program = programs.program(name, *others)
    return properties.summary(program, costs.rows(program, programs.DEVICE), towers or {})


def test_collectives_of_the_compiler():
    found = summary("""
  %a = bf16[4,8]{1,0} parameter(0)
  %gathered = bf16[32,8]{1,0} all-gather(%a), dimensions={0}, metadata={op_name="jit(f)/x" stack_frame_id=2}
  %begun = (bf16[4,8]{1,0}, bf16[32,8]{1,0}) all-gather-start(%a), dimensions={0}, metadata={op_name="y" stack_frame_id=2}
  %ended = bf16[32,8]{1,0} all-gather-done(%begun)
  %moved = (bf16[4,8]{1,0}, bf16[4,8]{1,0}, u32[], u32[]) collective-permute-start(%a), source_target_pairs={{0,1},{1,0}}
  %arrived = bf16[4,8]{1,0} collective-permute-done(%moved)
  ROOT %sum = bf16[32,8]{1,0} all-reduce(%gathered), to_apply=%add
""")["collectives"]  # noqa: E501
    assert found["all-gather"] == {"lgdea_jax/models/vit.py:40": {"count": 2, "bytes": 2 * 32 * 8 * 2}}
    assert found["collective-permute"] == {"no source line": {"count": 1, "bytes": 4 * 8 * 2}}
    assert found["all-reduce"] == {"no source line": {"count": 1, "bytes": 32 * 8 * 2}}


@pytest.mark.parametrize(("line", "name"), [
    ('custom-call(%a), custom_call_target="xla_ffi_python_cpu_callback"', "xla_ffi_python_cpu_callback"),
    ('custom-call(%a), custom_call_target="xla_python_gpu_callback"', "xla_python_gpu_callback"),
    ("send(%a), channel_id=1, is_host_transfer=true", "send"),
    ("outfeed(%a), outfeed_config=7", "outfeed")])
def test_calls_to_the_host(line, name):
    body = f"""
  %a = f32[4]{{0}} parameter(0)
  ROOT %call = f32[4]{{0}} {line}
"""
    assert summary(body)["host_callbacks"] == {name: 1}
    assert summary(body.replace(line, "negate(%a)"))["host_callbacks"] == {}


@pytest.mark.parametrize(("shape", "scores"), [
    ("bf16[2,12,197,197]", True), ("f32[24,197,197]", True), ("f32[24,208,208]", True), ("f32[197,197,24]", True),
    ("bf16[2,197,768]", False), ("bf16[197,197]", False), ("bf16[5,197,197]", False), ("bf16[24,512,512]", False)])
def test_scores_of_attention(shape, scores):
    found = summary(f"""
  %a = {shape} parameter(0)
  ROOT %b = {shape} negate(%a)
""", towers={"image": (196, 12)})["attention"]
    assert bool(found["scores"]) == scores
    if scores:
        assert next(iter(found["scores"])) == f"image {shape.split('[')[0]}"


def test_fused_attention():
    found = summary("""
  %q = bf16[2,16,3,8]{3,2,1,0} parameter(0)
  %one = (bf16[2,3,16,8]{3,1,2,0}, u8[0]{0}) custom-call(%q), custom_call_target="__cudnn$fmhaSoftmax"
  ROOT %two = bf16[2,16,3,8]{3,2,1,0} custom-call(%q), custom_call_target="tpu_custom_call", metadata={op_name="jit(f)/splash_mha"}
""")  # noqa: E501
    assert found["attention"] == {"fused": 2, "scores": {}}


def test_transposes_move_data():
    def moves(source, result, operation):
        return summary(f"""
  %a = {source} parameter(0)
  ROOT %b = {result} {operation}
""")["transposes"]["count"]

    assert moves("f32[4,8]{1,0}", "f32[8,4]{1,0}", "transpose(%a), dimensions={1,0}") == 1
    assert moves("f32[4,8]{1,0}", "f32[8,4]{0,1}", "transpose(%a), dimensions={1,0}") == 0  # The same order in memory.
    assert moves("f32[4,1]{1,0}", "f32[1,4]{1,0}", "transpose(%a), dimensions={1,0}") == 0
    assert moves("f32[4,8]{1,0}", "f32[4,8]{0,1}", "copy(%a)") == 1
    assert moves("f32[4,8]{1,0}", "f32[4,8]{1,0}", "copy(%a)") == 0


def test_layouts_of_convolutions():
    found = summary("""
  %x = f32[2,8,8,3]{3,2,1,0} parameter(0)
  %w = f32[3,3,3,4]{3,2,1,0} parameter(1)
  ROOT %y = f32[2,8,8,4]{3,2,1,0} convolution(%x, %w), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f
""")
    assert found["convolutions"] == {"b01f_01io->b01f": 1}


REAL = """
import json
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
rows, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())

def gathers(x):
    return jax.shard_map(lambda part: jax.lax.all_gather(part, "data", tiled=True), mesh=mesh, in_specs=P("data"),
                         out_specs=P(), check_vma=False)(x)

def calls(x):
    return jax.pure_callback(np.negative, x, x)

def product(x):
    return x @ jnp.ones((16, 4), x.dtype)

x = jax.ShapeDtypeStruct((64, 16), jnp.float32, sharding=rows)
y = jax.ShapeDtypeStruct((64, 16), jnp.float32, sharding=whole)
print(json.dumps([jax.jit(function).lower(shape).compile().as_text()
                  for function, shape in ((gathers, x), (calls, y), (product, x))]))
"""


def test_programs_of_the_compiler():
    """Programs for eight fake devices: what `as_text` writes today is what is read here."""
    done = subprocess.run([sys.executable, "-c", REAL], cwd=runs.ROOT, env=runs.environment(devices=8),
                          capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found, work = [], []
    for text in json.loads(done.stdout):
        program = hlo.read_program(text)
        rows = costs.rows(program, programs.DEVICE)
        found.append(properties.summary(program, rows, {}))
        work.append(sum(sum(row.flops.values()) for row in rows))
    (line,) = found[0]["collectives"]["all-gather"].items()
    assert line == ("<string>:9", {"count": 1, "bytes": 64 * 16 * 4})
    assert [sum(some["host_callbacks"].values()) for some in found] == [0, 1, 0]
    assert work == [0, 0, 2 * 8 * 16 * 4]  # A device has 8 of the 64 rows.
