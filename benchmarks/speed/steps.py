"""Training steps beside PyTorch: our two towers against the same towers written here in PyTorch, eager and compiled.

    python -m benchmarks.speed.steps --out=speed.json                        # what applies to the device at hand
    python -m benchmarks.speed.steps --out=speed.json --only=G1 --repeats=9  # taskset -c 0,1 before it pins the cores

A step is the forward pass of both towers, CLIP's loss, the backward pass and AdamW, float32. The towers have equal
shapes and equal parameters: ours are copied into PyTorch's, and the losses of the first step must agree to 1e-4. Both
run in this process with as many threads as it has cores, turn by turn (`benchmarks.speed.turns`). A turn is a few steps
in a row as training does them: the losses are read after the last. PyTorch is at its best:
`scaled_dot_product_attention`, fused AdamW, `set_to_none`, channels-last convolutions, `torch.compile`. The table gives
the median seconds of a step and the median of the turns' ratios with its 95% interval (above 1 we are faster) and the
worst turn's.

Rows of the table, by the numbers of our goals: G1 ViT and BERT; G2 ResNet and BERT; G3 the full LGDEA step beside a
plain one and G4 the loss in chunks have commands of their own (`benchmarks.speed.step_cost`,
`benchmarks.speed.contrastive`), as have G5 (`benchmarks.speed.input_pipeline`), G8 (`benchmarks.speed.relations`) and
G9 and G10 (`benchmarks.speed.metrics`). On a CPU the towers are small; what needs a GPU is listed as not measured.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.turns import Ratio, Turns, take_turns
from lgdea_jax import cli
from lgdea_jax.errors import UserError, choose, require
from lgdea_jax.runtime import host_memory

Steps = Callable[[dict[str, np.ndarray], int], list[float]]  # (batch, number of steps) -> the loss of each
VOCABULARY, RATE, DECAY, SCALE = 4000, 1e-3, 0.05, 14.3
# Sizes on a CPU: towers of a few million parameters.
CPU_ROWS: dict[str, dict[str, Any]] = {
    "G1": {"batch": 32, "side": 112, "tokens": 64, "width": 128,
           "image": {"kind": "vit", "patch": 16, "width": 192, "depth": 4, "heads": 3, "mlp_dim": 768},
           "text": {"width": 192, "depth": 4, "heads": 3, "mlp_dim": 768}},
    "G2": {"batch": 32, "side": 64, "tokens": 64, "width": 128,
           "image": {"kind": "resnet", "width": 32},
           "text": {"width": 128, "depth": 2, "heads": 2, "mlp_dim": 512}},
}
NOT_ON_CPU = {
    "G1 (ViT-B/16 + BERT-base, bfloat16)": ">= 45% MFU and >= 1.15 x compiled",
    "G2 (ResNet-50 + BERT-base, bfloat16)": ">= 1.15 x compiled",
    "G3 (full LGDEA step / plain step)": "<= 1.10 x",
    "G4 (loss in chunks, 32k and 1M image-text pairs)": "<= 5% of the temporaries",
    "G7 (3D ResNet-18)": ">= 1.15 x, >= 35% MFU",
    "G8 (relations, 200k x 200k)": "<= 50 ms, <= 2 GB",
}


def our_steps(sizes: dict[str, Any]) -> tuple[Steps, dict[str, np.ndarray], float]:
    """(our towers' steps, the initial parameters, compile seconds)."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from lgdea_jax.arrays import flatten
    from lgdea_jax.models import bert, lgdea, resnet, vit
    from lgdea_jax.models.forward import ForwardOptions, forward

    rngs = nnx.Rngs(0)
    image = dict(sizes["image"])
    if image.pop("kind") == "vit":
        image.pop("patch")
        tower = vit.ViT(image_size=sizes["side"], **vit.sizes("XS/16", **image), channels=1, rngs=rngs)
    else:
        tower = resnet.ResNet(**resnet.sizes("resnet8", **image), stem="patch2", norm="group", zero_init=False,
                              channels=1, rngs=rngs)
    text = bert.Bert(vocab_size=VOCABULARY, max_length=sizes["tokens"], pool="mean", rngs=rngs, **sizes["text"])
    model = lgdea.TwoTowers(image_tower=tower, text_tower=text, width=sizes["width"], prototypes=0, lesion_queries=0,
                            labels=0, logit_scale=SCALE, logit_bias=0.0, rngs=rngs)
    graphdef, state = nnx.split(model)
    params = nnx.to_pure_dict(state)
    options = ForwardOptions(pad_id=0, mean=0.5, std=0.25, per_image=False)
    tx = optax.adamw(RATE, weight_decay=DECAY)

    def step(params: Any, opt: Any, batch: dict[str, jax.Array]) -> tuple[Any, Any, jax.Array]:
        from lgdea_jax.losses import contrastive

        def loss(params: Any) -> jax.Array:
            outputs = forward(nnx.merge(graphdef, params), batch, options=options, train=True)
            return contrastive.softmax_contrastive(outputs["image"]["pooled"], outputs["text"]["pooled"],
                                                   outputs["logit_scale"])

        value, gradients = jax.value_and_grad(loss)(params)
        updates, opt = tx.update(gradients, opt, params)
        return optax.apply_updates(params, updates), opt, value

    first = {name: np.asarray(leaf) for name, leaf in flatten(params).items()}
    held = {"params": params, "opt": tx.init(params)}
    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in made_batch(sizes).items()}
    start = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(held["params"], held["opt"], shapes).compile()
    seconds = time.perf_counter() - start

    def run(batch: dict[str, np.ndarray], steps: int) -> list[float]:
        losses = []
        for _ in range(steps):
            held["params"], held["opt"], value = compiled(held["params"], held["opt"],
                                                          {k: jnp.asarray(v) for k, v in batch.items()})
            losses.append(value)
        jax.block_until_ready(held)
        return [float(value) for value in losses]

    return run, first, seconds


def made_batch(sizes: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """image uint8 [B, S, S], tokens int32 [B, T], no padding."""
    rng = np.random.default_rng(seed)
    return {"image": rng.integers(0, 256, (sizes["batch"], sizes["side"], sizes["side"]), np.uint8),
            "tokens": rng.integers(1, VOCABULARY, (sizes["batch"], sizes["tokens"])).astype(np.int32)}


def their_steps(sizes: dict[str, Any], params: dict[str, np.ndarray], *, compiled: bool) -> Steps:
    """Those of the same towers in PyTorch."""
    torch = require("torch", "test", "the comparison")
    from benchmarks.speed.torch_towers import TwoTowers

    torch.manual_seed(0)
    model = TwoTowers(sizes["image"], sizes["text"], side=sizes["side"], tokens=sizes["tokens"], width=sizes["width"],
                      vocabulary=VOCABULARY)
    model.load(params)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY, fused=True)
    function = torch.compile(model) if compiled else model

    def run(batch: dict[str, np.ndarray], steps: int) -> list[float]:
        losses = []
        for _ in range(steps):
            optimiser.zero_grad(set_to_none=True)
            loss = function(torch.from_numpy(batch["image"]), torch.from_numpy(batch["tokens"]))
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
        return [float(value) for value in losses]

    return run


def compare(name: str, repeats: int, steps: int) -> dict[str, Any]:
    """The steps of one row, in turns.

    Raises:
      SystemExit: the losses of the first step differ by more than 1e-4.
    """
    sizes = CPU_ROWS[name]
    ours, params, compile_seconds = our_steps(sizes)
    forms = {"jax": ours, "torch": their_steps(sizes, params, compiled=False),
             "torch compiled": their_steps(sizes, params, compiled=True)}
    batch = made_batch(sizes)
    losses = {}
    for form, run in forms.items():
        start = time.perf_counter()
        losses[form] = run(batch, 1)[0]  # Compiles PyTorch's forward and backward passes.
        if form == "torch compiled":
            torch_compile_seconds = time.perf_counter() - start
    if max(losses.values()) - min(losses.values()) > 1e-4:
        raise SystemExit(f"{name}: the losses of the first step differ: {losses}")
    turns = take_turns({form: functools.partial(run, batch) for form, run in forms.items()}, turns=repeats, steps=steps)
    return {"row": name, "sizes": sizes, "parameters": sum(int(value.size) for value in params.values()),
            "first_loss": losses, "compile_seconds": {"jax": compile_seconds, "torch compiled": torch_compile_seconds},
            **summary(turns)}


def summary(turns: Turns) -> dict[str, Any]:
    """Of a row, for the JSON: medians, every turn, PyTorch's ratios."""
    return {"seconds": {form: turns.median(form) for form in turns.seconds}, "all_seconds": turns.seconds,
            "ratio": {form: dataclasses.asdict(turns.ratio(form, "jax")) for form in turns.seconds if form != "jax"}}


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    towers = {"G1": "ViT + BERT", "G2": "ResNet + BERT"}[row["row"]]
    numbers = [f"{1000 * row['seconds'][form]:.1f}" for form in ("jax", "torch", "torch compiled")]
    ratios = [Ratio(**row["ratio"][form]) for form in ("torch", "torch compiled")]
    ratios = [f"{ratio} (worst turn {ratio.worst:.2f})" for ratio in ratios]
    return f"| {row['row']} | {towers}, {row['parameters'] / 1e6:.1f} M | {' | '.join([*numbers, *ratios])} |"


def main(argv: list[str]) -> int:
    """The command line; returns the exit status."""
    import jax

    parser = cli.Parser(prog="python -m benchmarks.speed.steps", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--only", default=",".join(CPU_ROWS), help=f"rows, of {', '.join(CPU_ROWS)}")
    parser.add_argument("--repeats", type=int, default=15, help="turns of each form (default: 15)")
    parser.add_argument("--steps", type=int, default=5, help="of a turn (default: 5)")
    options = parser.parse_args(argv)
    kind = jax.devices()[0].device_kind
    if jax.default_backend() != "cpu":
        raise UserError(f"on {kind} the rows of a CPU say nothing: run with JAX_PLATFORMS=cpu; the towers at the "
                            "scale of the papers have no PyTorch peer here yet")
    torch = require("torch", "test", "the comparison")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    print("| row | towers | ours, ms | PyTorch, ms | compiled, ms | PyTorch / ours | compiled / ours |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    for name in options.only.split(","):
        rows.append(compare(choose("row", name, CPU_ROWS), options.repeats, options.steps))
        print(line(rows[-1]), flush=True)
    print("not measured on this device: " + "; ".join(f"{name} (goal: {goal})" for name, goal in NOT_ON_CPU.items()))
    options.out.write_text(json.dumps({
        "device": kind, "cores": len(os.sched_getaffinity(0)), "load": os.getloadavg(), "rows": rows,
        "versions": {"jax": jax.__version__, "torch": torch.__version__}, "not_measured": NOT_ON_CPU,
        "command": ["benchmarks.speed.steps", *argv]}, indent=1) + "\n", encoding="utf-8")
    return cli.OK


if __name__ == "__main__":
    host_memory.keep_freed_memory()  # As training does; PyTorch in this process has it too.
    cli.run(main)
