"""Floating point operations of matrix products and convolutions, from shapes: one multiplication and addition are two.

Only products that happen count: a convolution's positions in the padding, or between the elements of a dilated input,
do not. Everything else that a step computes is bound by memory, and is not counted.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from lgdea_jax.training.aot.hlo import Array, Instruction

# Custom calls with products. cuDNN's attention multiplies twice forward; backward it makes the scores once more.
GEMMS = ("__cublas$gemm", "__cublas$lt$matmul", "__cublas$lt$matmul$f8")
ATTENTION = {"__cudnn$fmha": 2, "__cudnn$fmhaBackward": 5}


def product(out: Sequence[int], contracted: Sequence[int]) -> int:
    """Of a matrix product: dimensions of the result, and the lengths of what is summed over."""
    return 2 * math.prod(out) * math.prod(contracted)


@functools.lru_cache(maxsize=4096)
def _hits(size: int, out: int, kernel: int, stride: int, low: int, dilate: int, kernel_dilate: int) -> int:
    """Pairs of a result's and a kernel's position, along one axis, that meet an element of the input."""
    place = np.arange(out)[:, None] * stride + np.arange(kernel)[None] * kernel_dilate - low
    return int(((place >= 0) & (place % dilate == 0) & (place // dilate < size)).sum())


def convolution(image: Sequence[int], kernel: Sequence[int], out: Sequence[int], labels: str,
                window: Mapping[str, Sequence[int]]) -> int:
    """Of a convolution.

    Args:
      image, kernel, out: dimensions.
      labels: XLA's `dim_labels`, e.g. b01f_01io->b01f.
      window: stride, low (padding in front), dilate (of the image), kernel_dilate; 1, 0, 1, 1 where absent.
    """
    image_names, kernel_names, out_names = re.split("_|->", labels)
    spatial = sorted(name for name in out_names if name.isdigit())
    hits = 1
    for axis, name in enumerate(spatial):
        given = {key: window[key][axis] if window.get(key) else default
                 for key, default in (("stride", 1), ("low", 0), ("dilate", 1), ("kernel_dilate", 1))}
        hits *= _hits(image[image_names.index(name)], out[out_names.index(name)], kernel[kernel_names.index(name)],
                      *given.values())
    # A kernel's inputs are those of one group already.
    return 2 * out[out_names.index("b")] * out[out_names.index("f")] * kernel[kernel_names.index("i")] * hits


def read_window(text: str) -> dict[str, list[int]]:
    """XLA's `window` attribute, e.g. "size=3x3 stride=2x2 pad=1_1x1_1 lhs_dilate=2x2", as `convolution` takes it."""
    found = dict(part.split("=", 1) for part in text.split())
    window = {ours: [int(value) for value in found[theirs].split("x")]
              for ours, theirs in (("stride", "stride"), ("dilate", "lhs_dilate"), ("kernel_dilate", "rhs_dilate"))
              if theirs in found}
    if "pad" in found:
        window["low"] = [int(value.split("_")[0]) for value in found["pad"].split("x")]
    return window


def of_instruction(item: Instruction, operands: Sequence[tuple[Array, ...]]) -> tuple[str, int] | None:
    """(type of the operands, operations) of one instruction; None of one without products.

    Args:
      item: what it calls is not looked into.
      operands: the shapes of its operands.
    """
    name = item.target.replace("Softmax", "").replace("ScaleBias", "").replace("Dropout", "").replace("F8", "")
    if item.opcode == "dot":
        lhs = operands[0][0]
        count = product(item.shape[0].dims, [lhs.dims[axis] for axis in item.numbers("lhs_contracting_dims")])
    elif item.target in GEMMS:
        lhs = operands[0][0]
        axes = re.search(r'"lhs_contracting_dimensions":\s*\[([^\]]*)\]', item.attributes)
        contracted = [lhs.dims[int(axis)] for axis in re.findall(r"\d+", axes[1] if axes else "")]
        count = product(item.shape[0].dims, contracted)
    elif item.opcode == "convolution" or name.startswith("__cudnn$conv"):
        lhs, arrays = operands[0][0], [operands[0][0].dims, operands[1][0].dims, item.shape[0].dims]
        if name == "__cudnn$convBackwardInput":  # (gradient of the result, kernel) -> gradient of the image.
            arrays = [arrays[2], arrays[1], arrays[0]]
        elif name == "__cudnn$convBackwardFilter":  # (image, gradient of the result) -> gradient of the kernel.
            arrays = [arrays[0], arrays[2], arrays[1]]
        count = convolution(*arrays, item.attribute("dim_labels"), read_window(item.attribute("window")))
    elif name in ATTENTION:
        lhs = operands[0][0]
        scores = re.search(r'"intermediate_tensor_shape":\s*\{[^{}]*"dimensions":\s*\[([^\]]*)\]', item.attributes)
        dims = [int(value) for value in re.findall(r"\d+", scores[1])] if scores else []
        count = ATTENTION[name] * product(dims, [lhs.elements // math.prod(dims[:-1])]) if dims else 0
    elif found := re.search(r'"cost_estimate":\s*\{[^{}]*"flops":\s*"?(\d+)', item.attributes):
        lhs, count = operands[0][0], int(found[1])  # A Pallas kernel that states what it does.
    else:
        return None
    precise = lhs.dtype == "f32" and "highest" in _precision(item)
    return "f32_highest" if precise else lhs.dtype, count


def _precision(item: Instruction) -> str:
    """That of the operands, in lower case: an attribute, or a setting of the back end."""
    found = re.search(r'operand_precision"?[=:]\s*[\[{]([^\]}]*)', item.attributes)
    return found[1].lower() if found else ""


def needed(jaxpr: Any) -> int:
    """Operations of the products of a traced function, before any compiler: of all devices together.

    Args:
      jaxpr: of `jax.make_jaxpr`. A loop of unknown length counts once, of alternatives the dearest.
    """
    return _needed(jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr)


def _needed(jaxpr: Any) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        shapes = [getattr(value.aval, "shape", ()) for value in (*eqn.invars, *eqn.outvars)]
        name = eqn.primitive.name
        if name == "dot_general":
            (axes, _), _ = eqn.params["dimension_numbers"]
            total += product(shapes[-1], [shapes[0][axis] for axis in axes])
        elif name == "conv_general_dilated":
            total += _convolution_eqn(eqn, shapes)
        elif name.startswith("dot_product_attention_fwd"):  # cuDNN's: query and key [B, T, heads, D].
            total += 2 * product((shapes[0][0], shapes[0][2], shapes[0][1], shapes[1][1]), (shapes[0][3],))
        elif name.startswith("dot_product_attention_bwd"):
            total += 4 * product((shapes[0][0], shapes[0][2], shapes[0][1], shapes[1][1]), (shapes[0][3],))
        elif name == "pallas_call" and eqn.params.get("cost_estimate"):
            total += int(eqn.params["cost_estimate"].flops)
        else:
            inner = [_needed(part) for part in _inside(eqn.params)]
            times = eqn.params.get("length", 1) if name == "scan" else 1
            if name == "shard_map":
                times = math.prod(eqn.params["mesh"].shape.values())
            total += max(inner, default=0) if name == "cond" else times * sum(inner)
    return total


def _inside(params: Mapping[str, Any]) -> list[Any]:
    found = []
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, ClosedJaxpr):
                found.append(part.jaxpr)
            elif isinstance(part, Jaxpr):
                found.append(part)
    return found


def _convolution_eqn(eqn: Any, shapes: Sequence[Sequence[int]]) -> int:
    numbers, params = eqn.params["dimension_numbers"], eqn.params
    labels = []
    for spec, (first, second) in zip((numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec), ("bf", "oi", "bf")):
        names = {spec[0]: first, spec[1]: second} | {axis: str(place) for place, axis in enumerate(spec[2:])}
        labels.append("".join(names[axis] for axis in range(len(spec))))
    window = {"stride": params["window_strides"], "low": [low for low, _ in params["padding"]],
              "dilate": params["lhs_dilation"], "kernel_dilate": params["rhs_dilation"]}
    return convolution(shapes[0], shapes[1], shapes[-1], f"{labels[0]}_{labels[1]}->{labels[2]}", window)
