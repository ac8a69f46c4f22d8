"""Reads and splits tables of MIMIC-CXR's size: how long it takes, and how much memory.

    python -m benchmarks.speed.mimic_tables               # 377,110 images of 227,835 studies; fails over 60 s or 4 GB
    python -m benchmarks.speed.mimic_tables --images=20000 --studies=12000

The rows are made up; no image and no report is opened, as in `data_prep.build` before its first shard. The reading
happens in a process of its own, whose peak memory is measured. Prints one line of JSON: rows and studies per split,
seconds, megabytes, and the size of what is sent to every worker process.
"""

from __future__ import annotations

import argparse
import gzip
import json
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.speed.memory import peak_bytes
from data_prep.sources.registry import open_sources
from data_prep.sources.shared import mimic_files
from lgdea_jax import cli
from lgdea_jax.findings.label_sets import LABEL_SETS

IMAGES, STUDIES, SUBJECTS = 377_110, 227_835, 65_379
SECONDS, MEGABYTES = 60, 4096


def write(folder: Path, images: int, studies: int, seed: int) -> None:
    """Writes the three tables, one image file and one report file."""
    rng = np.random.default_rng(seed)
    subjects = max(1, round(studies * SUBJECTS / STUDIES))
    subject_of = np.sort(np.concatenate([np.arange(subjects), rng.integers(0, subjects, studies - subjects)]))
    study_of = np.sort(np.concatenate([np.arange(studies), rng.integers(0, studies, images - studies)]))
    part = rng.choice(["train", "validate", "test"], subjects, p=[0.98, 0.01, 0.01])
    words = rng.integers(0, 2**32, (images, 5))
    views = rng.choice(["AP", "PA", "LATERAL", "LL", ""], images)
    names = LABEL_SETS["chexpert14"]
    values = np.array(["", "1.0", "0.0", "-1.0"])[rng.choice(4, (studies, len(names)), p=[0.75, 0.12, 0.1, 0.03])]
    dicoms = ["-".join(f"{word:08x}" for word in row) for row in words.tolist()]
    metadata, splits = [], []
    for i, (study, name) in enumerate(zip(study_of.tolist(), dicoms, strict=True)):
        subject = int(subject_of[study])
        ids = f"{10000032 + subject},{50000000 + study}"
        metadata.append(f"{name},{ids},CHEST (PA AND LAT),{views[i]},3056,2544,21800506,213014.531,CHEST (PA AND LAT),"
                        "postero-anterior,Erect")
        splits.append(f"{name},{50000000 + study},{10000032 + subject},{part[subject]}")
    labels = [f"{10000032 + int(subject_of[study])},{50000000 + study},{','.join(row)}"
              for study, row in enumerate(values.tolist())]
    for table, header, lines in (
            ("metadata", "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,"
             "StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,"
             "PatientOrientationCodeSequence_CodeMeaning", metadata),
            ("split", "dicom_id,study_id,subject_id,split", splits),
            ("chexpert", f"subject_id,study_id,{','.join(names)}", labels)):
        with gzip.open(folder / f"mimic-cxr-2.0.0-{table}.csv.gz", "wt", compresslevel=1) as file:
            file.write("\n".join([header, *lines]) + "\n")
    path = folder / "files" / mimic_files.study_path(str(10000032 + int(subject_of[0])), "50000000")
    path.mkdir(parents=True)
    (path / f"{dicoms[0]}.jpg").touch()
    path.with_suffix(".txt").touch()


def measure(folder: Path) -> dict[str, object]:
    """Opens the sources of `folder` in this process."""
    config = cli.read_config("configs/data/mimic_cxr.py")
    config.mimic_cxr.path = str(folder)
    started, used = time.monotonic(), time.process_time()
    sources = open_sources(config)
    seconds, used = time.monotonic() - started, time.process_time() - used
    memory = peak_bytes() / 2**20
    first, last = next(iter(sources.values()))[0], list(sources.values())[-1][-1]
    if not first.images or not last.images:
        raise ValueError("a study without images")
    return {"studies": {split: len(source) for split, source in sources.items()}, "seconds": round(seconds, 1),
            "cpu_seconds": round(used, 1), "megabytes": round(memory),
            "sent_megabytes": round(len(pickle.dumps(sources)) / 2**20)}


def main(argv: list[str]) -> int:
    """Parses the flags, writes the tables and measures."""
    parser = cli.Parser(prog="python -m benchmarks.speed.mimic_tables", description=__doc__)
    parser.add_argument("--images", type=int, default=IMAGES, help=f"number of images (default: {IMAGES:,})")
    parser.add_argument("--studies", type=int, default=STUDIES, help=f"of studies (default: {STUDIES:,})")
    parser.add_argument("--seed", type=int, default=0, help="of the made-up rows (default: 0)")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.measure:
        print(json.dumps(measure(Path(arguments.measure))))
        return cli.OK
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), arguments.images, arguments.studies, arguments.seed)
        process = subprocess.run([sys.executable, "-m", "benchmarks.speed.mimic_tables", f"--measure={folder}"],
                                 stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(process.stdout.splitlines()[-1])
    print(json.dumps({"images": arguments.images, **found}))
    return cli.OK if found["seconds"] <= SECONDS and found["megabytes"] <= MEGABYTES else cli.FAULT


if __name__ == "__main__":
    cli.run(main)
