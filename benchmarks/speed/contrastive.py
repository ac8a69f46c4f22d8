"""Contrastive losses in chunks, and with all scores at once: memory and time of value and gradient.

    python -m benchmarks.speed.contrastive --out=contrastive.json               # 8,192 pairs of width 512
    python -m benchmarks.speed.contrastive --out=contrastive.json --rows=2048 --losses=softmax --repeats=3

Each form runs in a process of its own, once to compile and then `--repeats` times; the forms take turns, and the ratio
is that of the medians. Memory is counted twice: what the process's peak grows by over the inputs and the compiled
program (the operating system's number), and the temporaries that the compiler plans. Both forms must agree to 1e-5.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.memory import peak_bytes
from lgdea_jax import cli
from lgdea_jax.errors import choose

LOSSES = ("softmax", "soft", "sigmoid")
SCALE, BIAS = 14.3, -10.0
MIB = 2.0**20


def loss_function(kind: str, chunk: int) -> Any:
    """(image, text, study) -> the loss; `chunk` rows at a time, 0 all rows at once."""
    from lgdea_jax.losses import contrastive
    from lgdea_jax.losses.chunks import Chunks
    from lgdea_jax.methods import _rows

    chunks = Chunks(chunk) if chunk else None

    def loss(image: Any, text: Any, study: Any) -> Any:
        if kind == "softmax":
            return contrastive.softmax_contrastive(image, text, SCALE, chunks=chunks)
        rows = {"study": study, "num_pairs": len(study)}
        if kind == "soft":
            return _rows.study_contrast(image, text, SCALE, rows, chunks=chunks)
        return _rows.study_sigmoid(image, text, SCALE, BIAS, rows, chunks=chunks)

    return loss


def measure(kind: str, chunk: int, rows: int, width: int) -> None:
    """Child process: answers each line on stdin with the seconds of one evaluation; ends with a JSON line."""
    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(0)
    image, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(2, rows, width)))
    inputs = (jnp.asarray(image, jnp.float32), jnp.asarray(text, jnp.float32), jnp.arange(rows) // 2)
    compiled = jax.jit(jax.value_and_grad(loss_function(kind, chunk), argnums=(0, 1))).lower(*inputs).compile()
    before = peak_bytes()
    value, gradients = jax.block_until_ready(compiled(*inputs))
    grown = peak_bytes() - before
    norms = [float(jnp.linalg.norm(g)) for g in gradients]
    picked = [float(x) for g in gradients for x in np.asarray(g)[:: max(1, rows // 16), :4].ravel()]
    print(json.dumps({"peak_bytes": grown, "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
                      "value": float(value), "norms": norms, "gradients": picked}), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        jax.block_until_ready(compiled(*inputs))
        print(time.perf_counter() - start, flush=True)


class Child:
    """One form in its own process."""

    def __init__(self, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.speed.contrastive", "--child", *map(str, arguments)], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.first = json.loads(self._line())
        self.seconds: list[float] = []

    def _line(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a measuring process died: too little memory?")
        return line

    def turn(self) -> None:
        """Times one evaluation."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.seconds.append(float(self._line()))

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def compare(kind: str, chunk: int, rows: int, width: int, repeats: int) -> dict[str, Any]:
    """Both forms of one loss.

    Raises:
      SystemExit: they differ by more than 1e-5.
    """
    forms = {name: Child(kind, size, rows, width) for name, size in (("whole", 0), ("chunked", chunk))}
    try:
        for _ in range(repeats):
            for child in forms.values():
                child.turn()
    finally:
        for child in forms.values():
            child.close()
    ours, whole = forms["chunked"], forms["whole"]
    for name in ("value", "norms", "gradients"):
        a, b = (np.atleast_1d(child.first[name]) for child in (ours, whole))
        if np.abs(a - b).max() > 1e-5 * np.abs(b).max():
            raise SystemExit(f"{kind}: {name} differs by {np.abs(a - b).max()}")
    median = {name: statistics.median(child.seconds) for name, child in forms.items()}
    return {"loss": kind, "rows": rows, "width": width, "chunk": chunk, "seconds": median,
            "worst_seconds": {name: max(child.seconds) for name, child in forms.items()},
            "time_ratio": median["chunked"] / median["whole"],
            "peak_bytes": {name: child.first["peak_bytes"] for name, child in forms.items()},
            "temporary_bytes": {name: child.first["temporary_bytes"] for name, child in forms.items()},
            "peak_ratio": ours.first["peak_bytes"] / max(1, whole.first["peak_bytes"]),
            "temporary_ratio": ours.first["temporary_bytes"] / max(1, whole.first["temporary_bytes"])}


def main(argv: list[str]) -> int:
    """The command line; returns the exit status."""
    if argv[:1] == ["--child"]:
        measure(argv[1], *map(int, argv[2:]))
        return cli.OK
    parser = cli.Parser(prog="python -m benchmarks.speed.contrastive", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--rows", type=int, default=8192, help="pairs of the batch (default: 8192)")
    parser.add_argument("--width", type=int, default=512, help="of the embeddings (default: 512)")
    parser.add_argument("--chunk", type=int, default=256, help="config.loss_chunk (default: 256)")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each form (default: 5)")
    parser.add_argument("--losses", default=",".join(LOSSES), help=f"of {', '.join(LOSSES)}")
    options = parser.parse_args(argv)
    table = []
    for kind in options.losses.split(","):
        row = compare(choose("loss", kind, LOSSES), options.chunk, options.rows, options.width, options.repeats)
        table.append(row)
        print(f"{kind}, {row['rows']:,} x {row['rows']:,}, width {row['width']}, chunks of {row['chunk']}: "
              f"{row['seconds']['chunked']:.2f} s against {row['seconds']['whole']:.2f} s "
              f"({row['time_ratio']:.2f} x); peak {row['peak_bytes']['chunked'] / MIB:.0f} MiB against "
              f"{row['peak_bytes']['whole'] / MIB:.0f} MiB ({100 * row['peak_ratio']:.1f}%), planned "
              f"{100 * row['temporary_ratio']:.1f}%", flush=True)
    options.out.write_text(json.dumps({"rows": table, "command": ["benchmarks.speed.contrastive", *argv]},
                                               indent=1) + "\n",
                           encoding="utf-8")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
