"""Reading CT volumes from our records against nibabel on the .nii.gz file of the same values.

    python -m benchmarks.speed.volumes
    python -m benchmarks.speed.volumes --shape=120,240,240 --repeat=3 --out=volumes.json

A made-up int16 chest with noise is written as .nii.gz (int16) and, through the build, as a record. Timed are the whole
volume and a 96^3 crop at a random offset: nibabel's `get_fdata()` (and, for the crop, the same by slicing `dataobj`,
whichever is quicker), and ours from the shard as training reads it: the record, and its volume decoded from its byte
offset (of the crop, only its chunks). Values must be equal. Fails unless the whole volume is read at least 8 times and
the crop at least 20 times as fast.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from ml_collections import ConfigDict
from scipy import ndimage

from data_prep import build as build_module
from data_prep.shards import plan
from data_prep.study import ImageRef, Study
from data_prep.synthetic.ct.drawing import render
from data_prep.synthetic.ct.world import Lesion, Scene, sample_anatomy
from data_prep.synthetic.random_stream import RandomStream
from lgdea_jax import cli
from lgdea_jax.data.source import open_records
from lgdea_jax.io import decode_volume
from lgdea_jax.io.raw_volume import VolumeHeader

FULL, CROP, SIDE = 8.0, 20.0, 96
SPACING = (1.5, 0.75, 0.75)


def chest(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """A phantom chest at `shape` with the noise of a real scanner: int16 [z, y, x]."""
    coarse = tuple(max(16, n // 4) for n in shape)
    lesions = tuple(Lesion(name, ("right upper lobe",), 1, 1) for name in ("Nodule", "Lung Opacity"))
    drawn, _ = render(Scene(sample_anatomy(RandomStream(seed)), lesions, 0.0), coarse, RandomStream(seed))
    factors = [new / old for new, old in zip(shape, coarse)]
    volume = ndimage.zoom(drawn.astype(np.float32), factors, order=1, mode="nearest", grid_mode=True)
    volume += np.random.default_rng(seed).standard_normal(shape, np.float32) * 18
    return np.clip(volume, -1024, 3071).astype(np.int16)


@dataclasses.dataclass
class _Source:
    """One study with one volume."""

    volume: np.ndarray
    label_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Study:
        image = ImageRef("0", pixels=self.volume, header=VolumeHeader(spacing=SPACING))
        return Study("s", "p", "test", (image,), modality="CT", terms="open")


def best(call: Callable[[], Any], repeat: int) -> tuple[float, Any]:
    """(least seconds of `repeat` calls, the last result)."""
    times, result = [], None
    for _ in range(repeat):
        start = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - start)
    return min(times), result


def measure(folder: Path, shape: tuple[int, int, int], repeat: int) -> dict[str, Any]:
    """Writes both files in `folder` and times reading them."""
    volume = chest(shape)
    side = min(SIDE, *shape)
    path = folder / "volume.nii.gz"
    nibabel.save(nibabel.Nifti1Image(volume.transpose(2, 1, 0), np.diag([*SPACING[::-1], 1.0])), path)
    source = _Source(volume)
    config = ConfigDict({
        "name": "volumes", "source": "one", "one": {}, "image_size": 64, "image_encoding": "png", "extractor": "none",
        "shard_studies": 1, "workers": 1, "tokenizer": {"vocab_size": 300}, "volume": {"geometry": "native"}})
    opened, plan.open_sources = plan.open_sources, lambda config: {"test": source}
    try:
        build_module.build(config, folder / "data", progress=False)
    finally:
        plan.open_sources = opened
    records = open_records(folder / "data", "test")
    rng = np.random.default_rng(1)
    low = [int(rng.integers(n - side + 1)) for n in shape]
    region = tuple(slice(a, a + side) for a in low)

    def nibabel_crop_sliced() -> np.ndarray:
        return np.asarray(nibabel.load(path).dataobj[region[::-1]])

    results: dict[str, Any] = {"shape": list(shape), "cores": len(os.sched_getaffinity(0)),
                               "file_bytes": path.stat().st_size, "record_bytes": len(records.read_bytes(0))}
    results["nibabel_full"], theirs = best(lambda: nibabel.load(path).get_fdata(), repeat)
    whole_then_cut, cut = best(lambda: nibabel.load(path).get_fdata()[region[::-1]].copy(), repeat)
    sliced, _ = best(nibabel_crop_sliced, repeat)
    results["nibabel_crop"] = min(whole_then_cut, sliced)
    results["ours_full"], ours = best(lambda: decode_volume(records.parts(0)[1]), repeat)
    results["ours_crop"], crop = best(lambda: decode_volume(records.parts(0)[1], region), 4 * repeat)
    results["equal"] = bool(np.array_equal(ours, theirs.transpose(2, 1, 0))
                            and np.array_equal(crop, cut.transpose(2, 1, 0)) and np.array_equal(ours, volume))
    results["full_speedup"] = results["nibabel_full"] / results["ours_full"]
    results["crop_speedup"] = results["nibabel_crop"] / results["ours_crop"]
    return results


def main(argv: list[str]) -> int:
    """Measures, prints, and says whether it is quick enough."""
    parser = cli.Parser(prog="python -m benchmarks.speed.volumes", description=__doc__)
    parser.add_argument("--shape", default="240,480,480", help="voxels of the volume, z,y,x (default: 240,480,480)")
    parser.add_argument("--repeat", type=int, default=5, help="turns, of which the quickest counts (default: 5)")
    parser.add_argument("--out", help="a JSON file for the numbers")
    flags = parser.parse_args(argv)
    shape = tuple(int(n) for n in flags.shape.split(","))
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), shape, flags.repeat)
    for what, least in (("full", FULL), ("crop", CROP)):
        print(f"{what}: nibabel {results[f'nibabel_{what}']:.3f} s, ours {results[f'ours_{what}']:.4f} s, "
              f"{results[f'{what}_speedup']:.1f} x as fast (at least {least:g})")
    print(f"values equal: {results['equal']}; .nii.gz {results['file_bytes'] / 1e6:.0f} MB, "
          f"record {results['record_bytes'] / 1e6:.0f} MB; {results['cores']} cores")
    if flags.out:
        Path(flags.out).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    good = results["equal"] and results["full_speedup"] >= FULL and results["crop_speedup"] >= CROP
    return 0 if good else 1


if __name__ == "__main__":
    cli.run(main)
