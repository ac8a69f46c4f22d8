"""The input pipeline beside a PyTorch DataLoader with PIL on the same images; growth from 10,000 to 1,000,000 records.

    python -m benchmarks.speed.input_pipeline --out=pipeline.json
    python -m benchmarks.speed.input_pipeline --out=growth.json --only=growth
    python -m benchmarks.speed.input_pipeline --out=shipped.json --only=shipped

- `rate`: 256 px records (JPEG, and raw pixels) to shuffled uint8 batches at 256 px: records are built at the model's
  size, so neither side resizes, and nothing is augmented. Ours reads ArrayRecord data sets, images and labels; the
  DataLoader reads the same JPEG bytes from files, decodes them with PIL into uint8 tensors and batches them. Each side
  is tried with several numbers of workers (ours with threads too) and its best one counts; the turns alternate.
- `growth`: the same small images (32 px, raw) as data sets of 10,000 and of 1,000,000 records; seconds a batch and the
  process's own memory (private pages) while reading shuffled batches.
- `shipped`: the batches of configs/lgdea_mimic.py, see `benchmarks.speed.shipped_input`.

Take the cores for yourself while it runs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed import shipped_input
from lgdea_jax import cli
from lgdea_jax.data import dataset, shard_file
from lgdea_jax.data.sums import SUMS_FILE
from lgdea_jax.errors import require

BATCH, SIDE = 64, 256
GROWTH = (10_000, 1_000_000)
GROWTH_SIDE = 32
GROWTH_TURNS = 12  # Times --repeats: a turn of `growth` takes a fifth of a second, and a few of them prove nothing.


def pictures(count: int, side: int) -> Iterator[np.ndarray]:
    """Smooth random images with some grain, uint8 [side, side]: they compress about as radiographs do."""
    rng = np.random.default_rng(0)
    from PIL import Image

    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
        yield np.clip(np.asarray(coarse, np.float32) + rng.normal(0, 2, (side, side)), 0, 255).astype(np.uint8)


def write_records(folder: Path, count: int, side: int, encoding: str, *, distinct: int) -> None:
    """A data set of image records as `data_prep.build` writes it: shards, metadata and index.

    Args:
      count: records; distinct: different images among them.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    from lgdea_jax import records
    from lgdea_jax.data import codec
    from lgdea_jax.io import encode_image
    from lgdea_jax.preprocess.image import RECORD_TRANSFORM

    folder.mkdir(parents=True)
    encoded = [encode_image(image, encoding) for image in pictures(min(distinct, count), side)]
    report = "The lungs are clear. There is a small right pleural effusion. The heart is not enlarged. " * 3
    template = records.Record(
        study_id="s", image_id="i", subject_id="p", modality="xray", view="PA", image=b"", image_format=encoding,
        image_shape=np.array([1, side, side]), original_shape=np.array([1, side, side]), spacing=np.zeros(3),
        report=report, evidence=(), labels=np.zeros(14, np.int8), boxes=(), normal=False, has_image=True,
        has_report=True, sex="", age=-1.0, source="made", licence="none", terms="open", language="en", extractor="",
        transform=RECORD_TRANSFORM, label_source="")
    # Equal rows cost their readers the same as different ones.
    rows = [codec.encode_record(dataclasses.replace(
        template, study_id=f"s{row}", image_id=f"i{row}", subject_id=f"p{row}", image=image))
        for row, image in enumerate(encoded)]
    shards, per_shard = [], 50_000
    for number, start in enumerate(range(0, count, per_shard)):
        name, held = f"made-train-{number:05d}.array_record", min(per_shard, count - start)
        writer = ArrayRecordWriter(str(folder / name), shard_file.WRITER_OPTIONS)
        for row in range(start, start + held):
            writer.write(rows[row % len(rows)])
        writer.close()
        shards.append(dataset.Shard(name, held, (folder / name).stat().st_size, hashlib.sha256(b"").hexdigest()))
    counts = dict.fromkeys(("rows", "read", "studies", "records", "images", "reports"), count)
    metadata = dataset.DatasetMetadata(
        schema_version=records.SCHEMA_VERSION, name="made", modalities=("xray",), languages=("en",),
        label_names=tuple(f"label{n}" for n in range(14)), transform=RECORD_TRANSFORM, image_size=side,
        image_encoding=encoding, sources=(), extractor="", tokenizer="", shards={"train": tuple(shards)},
        counts={"train": {**counts, "rejected": 0, "normal": 0, "evidence": 0}}, converted={}, config={}, input={},
        command="", seed=0)
    content = metadata.to_json().encode()
    (folder / dataset.METADATA_FILE).write_bytes(content)
    (folder / SUMS_FILE).write_text(f"{hashlib.sha256(content).hexdigest()}  {dataset.METADATA_FILE}\n")


def our_batches(folder: Path, count: int, side: int, *, workers: int, threads: int) -> Iterator[dict[str, Any]]:
    """Shuffled batches of images and labels without augmentation, as training reads them."""
    from lgdea_jax.data import pipeline
    from lgdea_jax.data.batch import BatchSchema
    from lgdea_jax.preprocess.augment import Augment

    items = pipeline.Items(
        str(folder), "train", np.arange(count), stream="images", schema=BatchSchema(side, None, 14), tokenizer=None,
        label_names=[f"label{n}" for n in range(14)], cache=False)
    augment = Augment(crop=(1.0, 1.0), aspect=1.0, rotate=0.0, gamma=0.0, contrast=0.0, brightness=0.0, noise=0.0,
                      erase=0.0, enabled=False)
    batches = pipeline.make_batches(
        {"pairs": [], "images": [(items, 1.0)], "reports": []}, sizes={"pairs": 0, "images": BATCH, "reports": 0},
        rows_of=lambda rows: slice(0, rows), augment=augment, seed=0)
    return pipeline.iterate(batches, start=0, workers=workers, threads=threads)


def their_batches(folder: Path, *, workers: int) -> Iterator[Any]:
    """A DataLoader over the JPEG files: PIL decodes them, tensors are stacked into a batch."""
    torch = require("torch", "test", "the comparison")
    from PIL import Image

    paths = sorted(folder.glob("*.jpeg"))
    torch.set_num_threads(1)

    class Files(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> Any:
            with Image.open(paths[index]) as image:
                return torch.from_numpy(np.array(image)), torch.zeros(14, dtype=torch.int8)

    loader = torch.utils.data.DataLoader(
        Files(), batch_size=BATCH, shuffle=True, num_workers=workers, drop_last=True,
        **({"prefetch_factor": 4, "persistent_workers": True} if workers else {}))
    while True:
        yield from loader


def processor_seconds() -> float:
    """Processor time so far of this process and of all that it started and that still run."""
    ticks, pids = 0, [os.getpid()]
    while pids:
        pid = pids.pop()
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
            for task in Path(f"/proc/{pid}/task").iterdir():
                pids += map(int, (task / "children").read_text(encoding="utf-8").split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def rate(make: Callable[[], Iterator[Any]], seconds: float) -> tuple[float, float]:
    """(images a second, processor microseconds an image) over some seconds, after a warm-up that fills the queues.

    The second number hardly depends on what else the machine does.
    """
    batches = make()
    for _ in range(24):
        next(batches)
    start, count, used = time.perf_counter(), 0, processor_seconds()
    while time.perf_counter() - start < seconds:
        next(batches)
        count += BATCH
    elapsed, used = time.perf_counter() - start, processor_seconds() - used
    if hasattr(batches, "close"):
        batches.close()
    return count / elapsed, 1e6 * used / count


def child(kind: str, folder: str, workers: str, threads: str, seconds: str) -> None:
    """A process of its own for each measurement: no worker or cache is left over from another one."""
    path, records = Path(folder), 2048
    if kind == "torch":
        value = rate(lambda: their_batches(path / "files", workers=int(workers)), float(seconds))
    else:
        from lgdea_jax.runtime import host_memory

        host_memory.keep_freed_memory()  # As training does.
        value = rate(lambda: our_batches(path / kind, records, SIDE, workers=int(workers), threads=int(threads)),
                     float(seconds))
    print(json.dumps(value))


def measure_rate(folder: Path, repeats: int, seconds: float) -> dict[str, Any]:
    """Best rates of each side, alternating."""
    records = 2048
    for encoding in ("jpeg", "raw"):
        write_records(folder / encoding, records, SIDE, encoding, distinct=records)
    from lgdea_jax.data import source

    (folder / "files").mkdir()
    for row, record in enumerate(source.open_records(folder / "jpeg", "train")):
        (folder / "files" / f"{row:05d}.jpeg").write_bytes(record.image)
    cores = len(os.sched_getaffinity(0))
    tries = {
        "torch": [(n, 1) for n in sorted({1, cores, cores + 1})],
        "jpeg": [(0, 1), (0, cores), (cores, 1)],
        "raw": [(0, 1), (0, cores), (cores, 1)]}
    rates: dict[tuple, list[tuple[float, float]]] = {}
    for _ in range(repeats):
        for kind, settings in tries.items():
            for workers, threads in settings:
                done = subprocess.run(
                    [sys.executable, "-m", "benchmarks.speed.input_pipeline", "--child",
                     kind, str(folder), str(workers),
                     str(threads), str(seconds)], capture_output=True, text=True, check=False)
                if done.returncode:
                    raise SystemExit(done.stderr)
                rates.setdefault((kind, workers, threads), []).append(json.loads(done.stdout.splitlines()[-1]))
    best = {}
    for kind in tries:
        median = {key: [statistics.median(column) for column in zip(*values)] for key, values in rates.items()
                  if key[0] == kind}
        key = max(median, key=lambda key: median[key][0])
        best[kind] = {"images_per_second": median[key][0], "processor_us_per_image": median[key][1],
                      "workers": key[1], "threads": key[2]}
    return {"best": best, "all": {" ".join(map(str, key)): values for key, values in rates.items()},
            "jpeg_ratio": best["jpeg"]["images_per_second"] / best["torch"]["images_per_second"],
            "raw_ratio": best["raw"]["images_per_second"] / best["torch"]["images_per_second"],
            "jpeg_processor_ratio": best["torch"]["processor_us_per_image"] / best["jpeg"]["processor_us_per_image"],
            "raw_processor_ratio": best["torch"]["processor_us_per_image"] / best["raw"]["processor_us_per_image"]}


def memory_bytes() -> int:
    """Memory of this process alone: private pages."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Dirty", "Private_Clean")))


def growth_child(folder: str, count: str, batches: str) -> None:
    """Answers each line on stdin with the seconds of `batches` batches and the memory."""
    reader = our_batches(Path(folder), int(count), GROWTH_SIDE, workers=0, threads=1)
    for _ in range(200):
        next(reader)
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(batches)):
            next(reader)
        print(json.dumps([(time.perf_counter() - start) / int(batches), memory_bytes()]), flush=True)


def measure_growth(folder: Path, repeats: int, sizes: tuple[int, ...]) -> dict[str, Any]:
    """Seconds a batch and memory for each size, alternating."""
    processes = {}
    for size in sizes:
        write_records(folder / str(size), size, GROWTH_SIDE, "raw", distinct=256)
        processes[size] = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.speed.input_pipeline", "--growth-child",
             str(folder / str(size)), str(size),
             "150"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for process in processes.values():
        if process.stdout.readline().strip() != "ready":
            raise SystemExit("a measuring process died")
    samples: dict[int, list[list[float]]] = {size: [] for size in sizes}
    for _ in range(repeats):
        for size, process in processes.items():
            process.stdin.write("\n")
            process.stdin.flush()
            samples[size].append(json.loads(process.stdout.readline()))
    for process in processes.values():
        process.stdin.close()
        process.wait()
    seconds = {size: statistics.median(s for s, _ in rows) for size, rows in samples.items()}
    memory = {size: max(m for _, m in rows) for size, rows in samples.items()}
    small, large = sizes[0], sizes[-1]
    return {"seconds_per_batch": seconds, "memory_bytes": memory, "samples": samples,
            "time_ratio": seconds[large] / seconds[small], "memory_ratio": memory[large] / memory[small]}


def main(argv: list[str]) -> int:
    """The command line; returns the exit status."""
    if argv[:1] == ["--child"]:
        child(*argv[1:])
        return cli.OK
    if argv[:1] == ["--growth-child"]:
        growth_child(*argv[1:])
        return cli.OK
    parser = cli.Parser(prog="python -m benchmarks.speed.input_pipeline", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--only", default="rate,growth,shipped", help="of rate, growth, shipped")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side (default: 5)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of one measurement of `rate` (default: 5)")
    parser.add_argument("--studies", type=int, default=60, help="studies of `shipped` (default: 60)")
    parser.add_argument("--records", type=int, nargs="+", default=list(GROWTH), help="sizes of `growth`")
    options = parser.parse_args(argv)
    result: dict[str, Any] = {"command": ["benchmarks.speed.input_pipeline", *argv],
                              "cores": len(os.sched_getaffinity(0)), "start_method": multiprocessing.get_start_method()}
    folder = Path(tempfile.mkdtemp(prefix="input_pipeline_"))
    try:
        if "rate" in options.only:
            result["rate"] = found = measure_rate(folder, options.repeats, options.seconds)
            for kind, best in found["best"].items():
                print(f"{kind}: {best['images_per_second']:,.0f} images/s ({best['workers']} workers, "
                      f"{best['threads']} threads)")
            print(f"from JPEG records {found['jpeg_ratio']:.2f} x, from raw records {found['raw_ratio']:.2f} x the "
                  "DataLoader", flush=True)
        if "growth" in options.only:
            result["growth"] = found = measure_growth(folder, GROWTH_TURNS * options.repeats, tuple(options.records))
            for size in options.records:
                print(f"{size:,} records: {1000 * found['seconds_per_batch'][size]:.2f} ms a batch of {BATCH}, "
                      f"{found['memory_bytes'][size] / 2**20:.0f} MiB")
            print(f"time {found['time_ratio']:.3f} x, memory {found['memory_ratio']:.3f} x")
        if "shipped" in options.only:
            result["shipped"] = found = shipped_input.measure(folder, options.repeats, options.studies)
            for name, value in found["pairs_per_second"].items():
                print(f"{name}: {value:,.0f} pairs a second of a core")
            print(f"shipped {found['ratio_text']} x each_time")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
