"""Small programs in XLA's text, written by hand, and what they are read with."""

from lgdea_jax.runtime.devices import Device
from lgdea_jax.training.aot import hlo

# 1 TFLOP/s in bfloat16, half of it in float32, a tenth in full float32; 1 GB/s.
DEVICE = Device("toy", "Toy", "cuda", {"bf16": 1e12, "f32": 0.5e12, "f32_highest": 0.1e12}, 1e9, 1e9, "")

TABLES = """
FileNames
1 "/home/someone/lgdea_jax/models/vit.py"
2 "/usr/lib/python3/site-packages/flax/nnx/linear.py"
3 "/home/someone/train.py"

FunctionNames
1 "call"

FileLocations
1 {file_name_id=3 function_name_id=1 line=5 end_line=5 column=2 end_column=9}
2 {file_name_id=1 function_name_id=1 line=40 end_line=41 column=2 end_column=9}
3 {file_name_id=2 function_name_id=1 line=7 end_line=7 column=2 end_column=9}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=3 parent_frame_id=3}
"""


def program(body, *others):
    """A program of the entry computation's lines and of other computations."""
    entry = "ENTRY %main (a: f32[]) -> f32[] {\n" + body.strip("\n") + "\n}\n"
    return hlo.read_program("HloModule jit_f, is_scheduled=true\n" + TABLES + "\n\n".join([*others, entry]))


PRODUCT = """
  %a.1 = bf16[8,16]{1,0} parameter(0)
  %b = bf16[16,4]{1,0} parameter(1)
  ROOT %dot.2 = bf16[8,4]{1,0} dot(%a.1, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="jit(f)/jvp(ViT)/dot_general" scheduling_name="dot.2" stack_frame_id=3}
"""  # noqa: E501
LOOP = ("""
  %a = (s32[], f32[4,8]{1,0}) parameter(0)
  ROOT %while = (s32[], f32[4,8]{1,0}) while(%a), condition=%stop, body=%body, backend_config={"known_trip_count":{"n":"12"}}
""", """%body (p: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %p = (s32[], f32[4,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[4,8]{1,0} get-tuple-element(%p), index=1
  %copy = f32[4,8]{0,1} copy(%x)
  %next = s32[] fusion(%i), kind=kLoop, calls=%one_more
  ROOT %both = (s32[], f32[4,8]{0,1}) tuple(%next, %copy)
}""", """%one_more (i.1: s32[]) -> s32[] {
  %i.1 = s32[] parameter(0)
  %one = s32[] constant(1)
  ROOT %sum = s32[] add(%i.1, %one)
}""", """%stop (p.1: (s32[], f32[4,8])) -> pred[] {
  %p.1 = (s32[], f32[4,8]{1,0}) parameter(0)
  %j = s32[] get-tuple-element(%p.1), index=0
  %limit = s32[] constant(5)
  ROOT %less = pred[] compare(%j, %limit), direction=LT
}""")  # noqa: E501
SLICED = ("""
  %stack = f32[12,4,8]{2,1,0} parameter(0)
  %at = s32[] parameter(1)
  ROOT %part = f32[4,8]{1,0} fusion(%stack, %at), kind=kLoop, calls=%take
""", """%take (s: f32[12,4,8], n: s32[]) -> f32[4,8] {
  %s = f32[12,4,8]{2,1,0} parameter(0)
  %n = s32[] parameter(1)
  %zero = s32[] constant(0)
  %cut = f32[1,4,8]{2,1,0} dynamic-slice(%s, %n, %zero, %zero), dynamic_slice_sizes={1,4,8}
  ROOT %flat = f32[4,8]{1,0} bitcast(%cut)
}""")
