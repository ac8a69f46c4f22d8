"""Chunks of questions as files in a folder, for workers on other machines, and the way of their replies into the cache.

A chunk is NAME.json; its worker leaves NAME.sqlite, a reply cache, and then NAME.done, what it counted. They quote
reports: the folder is for its user's eyes only, and is removed when the run is done.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.extract.llm.cache import Cache
from data_prep.extract.llm.jobs import Job
from data_prep.extract.llm.questions.question import Question
from lgdea_jax.errors import UserError
from lgdea_jax.runtime.files import LOCK, lock, remove_locked, write_text_atomically

SIZE = 100  # Questions: a minute or so of a worker's time, and what a lost worker may repeat.


def folder_of(job: Job) -> Path:
    """Where the chunks of a job lie: beside its cache."""
    return Path(f"{job.cache}.beam").absolute()


def write(path: Path, value: Any) -> None:
    """JSON, readable by the user alone, whole or not at all."""
    write_text_atomically(path, json.dumps(value), mode=0o600)


@contextlib.contextmanager
def own(folder: Path) -> Iterator[None]:
    """Makes the folder, for this user's eyes only, and holds its lock."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with lock(folder / LOCK, f"another run is working in {folder}"):
        yield


def cut(questions: Iterator[Question], folder: Path, job: Job, cache: Cache) -> tuple[list[str], int]:
    """Writes the chunks of a new run; returns their names and the number of questions in them."""
    run, names, count = uuid.uuid4().hex[:8], [], 0
    while part := list(itertools.islice(questions, SIZE)):
        if cache.reserve([question.key for question in part], job.scope) < len(part):
            raise UserError("another process is asking about the same reports through this cache: run the same command "
                            "again when it has ended")
        names.append(f"{run}-{len(names):06d}")
        write(folder / f"{names[-1]}.json", [(item.text, item.language, item.vote) for item in part])
        count += len(part)
    return names, count


def absorb(folder: Path, cache: Cache) -> None:
    """Takes the replies of finished and of killed workers into the cache, and removes the files."""
    for chunk in folder.glob("*.json"):
        chunk.unlink()  # First: a worker of a forgotten pipeline finds no more work.
    for file in sorted(folder.glob("*.sqlite")):
        cache.absorb(file)
    for file in folder.glob("*.done"):
        file.unlink()


def take_over(job: Job) -> None:
    """Takes what a killed run has left in the job's folder into its cache, and removes the folder.

    Raises:
      UserError: another run is working there.
    """
    folder = folder_of(job)
    if folder.is_dir():
        with own(folder):
            with Cache(job.cache) as cache:
                absorb(folder, cache)
            remove_locked(folder)
