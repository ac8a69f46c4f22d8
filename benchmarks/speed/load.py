"""Whether time and memory grow with the load as they should: long tables, many replies of a language model, long pages.

    python -m benchmarks.speed.load --out=load.json
    python -m benchmarks.speed.load --out=load.json --parts=build --rows=10000,100000
    python -m benchmarks.speed.predict --random=quick_start --images=5000

- build: a table of each number of rows (one in ten has an image, the others a report alone) becomes a data set, in a
  process of its own with one worker: seconds of CPU, peak memory.
- replies: a data set of 5,000 reports whose evidence comes from a language model over a local socket; a stand-in in
  another process answers at once. Replies per second of wall time, from the first question to the last reply.
- page: `lgdea_jax.report` over 50 results.

Fails (status 1) where time grows by more than a fifth over linear, memory by more than 100 MB, or fewer than 500
replies a second come in.
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.memory import peak_bytes
from data_prep.build import build
from data_prep.extract.llm.jobs import Job
from data_prep.extract.llm.runners.online import extract
from data_prep.extract.llm.settings import Settings
from lgdea_jax import cli, report
from lgdea_jax.runtime.files import output_file, write_text_atomically

PARTS = ("build", "replies", "page")
SENTENCES = ("There is a small left pleural effusion.", "No pneumothorax.", "The heart is enlarged.",
             "Lungs are clear.", "A 2 cm nodule lies in the right upper lobe.", "Mild bibasilar atelectasis.",
             "No focal consolidation.", "Degenerative changes of the spine.", "Interval increase of the edema.",
             "Lines and tubes are unchanged.")
FINDINGS = {0: "Pleural Effusion", 2: "Cardiomegaly", 4: "Nodule", 5: "Atelectasis"}
LEAST_REPLIES, MOST_MEGABYTES, MOST_SLOWER = 500, 100, 1.2


def reports(count: int) -> list[str]:
    """Different reports of three to eight sentences."""
    rng = random.Random(0)
    return [f"FINDINGS: Examination {n}. {' '.join(rng.sample(SENTENCES, rng.randint(3, 8)))}" for n in range(count)]


def write_table(folder: Path, count: int) -> Path:
    """studies.csv of `count` rows."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(20):
        Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)).save(folder / f"{number}.png")
    with open(folder / "studies.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("study_id", "subject_id", "split", "image", "report"))
        for number, text in enumerate(reports(count)):
            split = "train" if number % 10 < 8 else "test"
            image = "" if number % 10 else f"{number % 200 // 10}.png"
            rows.writerow((f"s{number}", f"p{number}", split, image, text))
    return folder / "studies.csv"


def build_rows(count: int) -> dict[str, float]:
    """Builds such a data set in this process."""
    with tempfile.TemporaryDirectory() as folder:
        config = cli.read_config("configs/data/table.py")
        config.table.path, config.workers = str(write_table(Path(folder), count)), 1
        begun, cpu = time.monotonic(), time.process_time()
        result = build(config, Path(folder) / "data", progress=False)
        assert sum(counts["read"] for counts in result.counts.values()) == count
        return {"rows": count, "seconds": time.monotonic() - begun, "cpu_seconds": time.process_time() - cpu,
                "peak_mb": peak_bytes() / 1e6}


def answer(asked: bytes) -> bytes:
    """What a server of the OpenAI protocol sends back: the findings of FINDINGS that the report states."""
    text = json.loads(asked)["messages"][-1]["content"]
    items = [{"quote": SENTENCES[n], "finding": name, "certainty": "present", "laterality": "", "severity": "",
              "temporality": "", "anatomy": ""} for n, name in FINDINGS.items() if SENTENCES[n] in text]
    body = json.dumps({"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [
        {"index": 0, "finish_reason": "stop", "message": {
            "role": "assistant", "content": json.dumps({"normal": False, "evidence": items})}}],
        "usage": {"prompt_tokens": 500, "completion_tokens": 20, "total_tokens": 520}}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


async def serve() -> None:
    """Answers every question, until its input ends."""
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                writer.write(answer(await reader.readexactly(int(head.split(b"content-length:")[1].split()[0]))))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    os._exit(0)


def ask(count: int) -> dict[str, float]:
    """Asks about `count` reports."""
    command = [sys.executable, "-m", "benchmarks.speed.load", "--serve", "--out="]
    with tempfile.TemporaryDirectory() as folder, subprocess.Popen(
            command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"  # type: ignore[union-attr]
        job = Job("openai", Settings(model="m", base_url=url, concurrency=32), str(Path(folder) / "replies.sqlite"))
        texts = reports(count)
        cpu, summary = time.process_time(), extract(lambda: texts, job)
        cpu = time.process_time() - cpu
        server.stdin.close()  # type: ignore[union-attr]
    assert summary.valid == count
    return {"replies": count, "seconds": summary.seconds, "cpu_seconds": cpu, "per_second": count / summary.seconds,
            "per_cpu_second": count / cpu}


def write_page(count: int) -> dict[str, float]:
    """A page of `count` results, each with 14 findings."""
    def entry(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.05, "high": value + 0.05, "n": 500}

    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for number in range(count):
            out = Path(folder) / f"{number}"
            out.mkdir()
            metrics = {"zero_shot/auroc": entry(0.7), **{f"zero_shot/auroc/finding {n}": entry(0.6) for n in range(14)}}
            write_text_atomically(out / "results.json", json.dumps({
                "benchmark": f"set {number % 10}", "data": "made up", "split": "test", "records": 500, "images": 500,
                "subjects": 400, "checkpoint": f"runs/{number // 10}", "step": 1000, "command": "python -m x",
                "terms": [], "leakage": None,
                "results": [{"mode": "clean", "metrics": metrics, "info": {}, "subgroups": {}}]}))
            runs.append(str(out))
        begun, target = time.process_time(), Path(folder) / "page.html"
        report.main([*runs, f"--html={target}"])
        return {"results": count, "cpu_seconds": time.process_time() - begun,
                "megabytes": target.stat().st_size / 1e6}


def main(argv: Sequence[str]) -> int:
    """Runs the parts; returns the exit status."""
    parser = cli.Parser(prog="python -m benchmarks.speed.load", description=__doc__.split("\n\n")[0],
                        epilog="\n\n".join(__doc__.split("\n\n")[1:]))
    parser.add_argument("--out", required=True, metavar="FILE", help="JSON file for the numbers")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of build, replies and page (default: all)")
    parser.add_argument("--rows", default="10000,100000", help="numbers of rows of the tables (default: 10000,100000)")
    parser.add_argument("--replies", type=int, default=5000, help="reports to ask about (default: 5000)")
    parser.add_argument("--results", type=int, default=50, help="results on the page (default: 50)")
    parser.add_argument("--serve", action="store_true", help="be the stand-in for a language model")
    parser.add_argument("--build_rows", type=int, default=0, metavar="N", help="build one table in this process")
    args = parser.parse_args(list(argv))
    if args.serve:
        asyncio.run(serve())
    if args.build_rows:
        print(json.dumps(build_rows(args.build_rows)))
        return cli.OK
    found: dict[str, Any] = {}
    slow = []
    for part in args.parts.split(","):
        if part == "build":
            found[part] = [json.loads(subprocess.run(
                [sys.executable, "-m", "benchmarks.speed.load", f"--build_rows={count}", "--out="], check=True,
                text=True, stdout=subprocess.PIPE).stdout.splitlines()[-1]) for count in args.rows.split(",")]
            first, last = found[part][0], found[part][-1]
            found["slower"] = last["cpu_seconds"] / last["rows"] / (first["cpu_seconds"] / first["rows"])
            found["more_mb"] = last["peak_mb"] - first["peak_mb"]
            slow += [found["slower"] > MOST_SLOWER, found["more_mb"] > MOST_MEGABYTES]
        elif part == "replies":
            found[part] = ask(args.replies)
            slow.append(found[part]["per_second"] < LEAST_REPLIES)
        else:
            found[part] = write_page(args.results)
        print(json.dumps({part: found[part]}), flush=True)
    with output_file(args.out) as file:
        write_text_atomically(file, json.dumps(found, indent=1) + "\n")
    return cli.FAULT if any(slow) else cli.OK


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
