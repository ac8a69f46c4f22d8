"""Makes shards: one task of the plan -> one finished shard, in this process, in worker processes or in a pipeline.

A shard depends on its task and the configuration only, so its bytes do not depend on the number of workers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_prep.extract.evidence_table import CORRECTED
from data_prep.extract.llm.cache import Cache
from data_prep.extract.llm.questions.question import Text
from data_prep.extract.llm.runners import replies_file
from data_prep.extract.llm.runners.replies_file import StoredReplies
from data_prep.shards import tables
from data_prep.shards.plan import COUNTS, Plan, ShardSpec, ShardTask
from data_prep.shards.record_maker import RecordMaker
from data_prep.shards.shard_writer import (
    ShardResult,
    ShardWriter,
    index_row,
    read_side_file,
    shard_name,
    side_file,
    write_side_file,
)
from data_prep.study import Reject, Rejection
from lgdea_jax.data.codec import encode_record
from lgdea_jax.data.dataset import BUILD_FOLDER, INDEX_COLUMNS
from lgdea_jax.data.shard_file import find_offsets, fingerprint
from lgdea_jax.errors import UserError
from lgdea_jax.runtime.processes import end_with_parent


def make_shard(source: Any, task: ShardTask, spec: ShardSpec, maker: RecordMaker) -> ShardResult:
    """Reads the task's studies, writes their records as a shard (unless `spec.out` is None) and its side file.

    Args:
      source: the split's opened source.
      task: which of its studies; spec: what all shards share; maker: of records by this `spec`.

    Raises:
      OSError: with errno ENOSPC or EDQUOT when the disk is full; nothing of the task counts then.
      UserError: a fault of the whole run that shows only while studies are read.
    """
    counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
    converted: Counter[str] = Counter()
    rejections: list[Rejection] = []
    sources, languages, modalities = set(), set(), set()
    rows: list[tuple[Any, ...]] = []
    written: list[tuple[bytes, int, int, int]] = []
    lines: list[tuple[str, ...]] = []
    labels: list[tuple[str, ...]] = []
    corrections: Counter[str] = Counter()
    writer = None
    if spec.out:
        writer = ShardWriter(spec.out / shard_name(spec.name, task))
    try:
        for index in range(task.start, task.stop):
            try:
                study = source[index]
            except Reject as reject:
                counts.update(rows=1, rejected=1)
                rejections.append(Rejection(reject.study_id, reject.image_id, index, reject.reason))
                continue
            made, refused, changed, n_rows, found = maker.records(study, index)
            if len(refused) > n_rows:
                raise ValueError("a study has more rejections than rows")
            given = spec.evidence.count(study.study_id) if spec.evidence else 0
            if given:
                corrections.update({"used" if made else "refused": given, "studies": 1},
                                   corrected=bool(made) and made[0][0].extractor == CORRECTED)
            lines.extend(found)
            converted.update(changed)
            rejections.extend(refused)
            counts.update(rows=n_rows, rejected=len(refused), read=n_rows - len(refused), studies=bool(made))
            if made:
                record = made[0][0]
                sources.add((study.source, study.licence, study.terms))
                languages.add(study.language)
                labels.append(tables.label_row(record))
                counts.update(reports=record.has_report, normal=record.normal, evidence=len(record.evidence))
            for record, image_hash in made:
                counts.update(records=1, images=record.has_image)
                modalities.add(record.modality)
                rows.append(index_row(record, image_hash))
                if writer:
                    data = encode_record(record)
                    writer.write(data)
                    if spec.volume:
                        written.append(fingerprint(record, data))
    except BaseException:
        if writer:
            writer.abort()
        raise
    names = ("key", *INDEX_COLUMNS)
    types = {"key": ("<u8", ()), **INDEX_COLUMNS}
    columns = {name: np.array([row[i] for row in rows], types[name][0]).reshape(len(rows), *types[name][1])
               for i, name in enumerate(names)}
    result = ShardResult(dict(counts), dict(converted), rejections, sorted(sources), sorted(languages),
                         sorted(modalities), records=len(rows), corrections=dict(corrections), columns=columns)
    if writer:
        result.file, result.bytes, result.sha256 = writer.path.name, *writer.finish(len(rows))
        if spec.volume:
            result.columns["offsets"] = find_offsets(writer.path, written)
        tables.write_parts(spec.out, task, lines, labels)
        write_side_file(side_file(spec.out, task), result)
    return result


class ShardWork:
    """`make_shard` for workers: picklable; its `RecordMaker` is made where the work is done.

    Args:
      sources: split -> its opened source.
      spec: what all shards share.
      handed_out: whether the replies of the job are read from the files of `hand_out`, not from its cache.
    """

    def __init__(self, sources: dict[str, Any], spec: ShardSpec, *, handed_out: bool = False) -> None:
        self._sources, self._spec, self._handed_out = sources, spec, handed_out
        self._maker: RecordMaker | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maker": None}

    def make(self, task: ShardTask) -> ShardResult:
        """Makes the task's shard."""
        if self._handed_out:
            maker = RecordMaker(self._spec, StoredReplies(_replies_file(self._spec, task)))
        else:
            maker = self._maker = self._maker or RecordMaker(self._spec)
        return make_shard(self._sources[task.split], task, self._spec, maker)

    def __call__(self, task: ShardTask) -> None:
        """Makes the task's shard unless it is there: a pipeline may run the same task twice."""
        if read_side_file(self._spec.out, task) is None:
            self.make(task)


def _replies_file(spec: ShardSpec, task: ShardTask) -> Path:
    return spec.out / BUILD_FOLDER / f"{task.split}-{task.shard:05d}.replies"


def hand_out(plan: Plan, todo: Sequence[ShardTask]) -> None:
    """Writes the replies about each shard's reports to a file of its own, for workers that do not have the cache.

    The files lie among those of the build, which are removed with it.
    """
    def reports(task: ShardTask) -> Iterator[Text]:
        source = plan.sources[task.split]
        for index in range(task.start, task.stop):
            with contextlib.suppress(Reject):
                study = source[index]
                yield Text(study.report, study.language)

    with Cache(plan.spec.job.cache) as cache:
        for task in todo:
            replies_file.write(_replies_file(plan.spec, task), reports(task), plan.spec.job, cache)


_work: ShardWork | None = None  # Set once in each worker process, by `_start`.


def _start(work: ShardWork) -> None:
    global _work
    end_with_parent()
    _work = work


def _make(task: ShardTask) -> ShardResult:
    result = _work.make(task)
    if result.file:
        result.rejections = []  # They are in the side file.
    return dataclasses.replace(result, columns={})


def run(plan: Plan, todo: Sequence[ShardTask], workers: int, *, progress: bool) -> Iterator[ShardResult]:
    """Makes the shards of `todo`, yields their results in order, and shows the time left.

    Args:
      plan: of the build; todo: its unfinished tasks.
      workers: number of processes, 0 for one per core.
      progress: show a bar on stderr when that is a terminal.

    Raises:
      UserError: a worker was killed, or a fault of the whole run.
    """
    total = sum(task.stop - task.start for task in plan.tasks)
    done = total - sum(task.stop - task.start for task in todo)
    workers = min(workers or len(os.sched_getaffinity(0)), max(1, len(todo)))
    work = ShardWork(plan.sources, plan.spec)
    with tqdm(total=total, initial=done, unit="study", desc=plan.spec.name, disable=None if progress else True) as bar:
        if workers == 1:
            for task in todo:
                result = work.make(task)
                bar.update(task.stop - task.start)
                yield result
            return
        # spawn: a parent that has threads (JAX, TFDS) cannot be forked safely.
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start, (work,))
        try:
            yield from _in_order(todo, lambda task: pool.submit(_make, task), 2 * workers, bar.update)
        except BrokenProcessPool:
            raise UserError("a worker process was killed (out of memory?): run the same command again to go on, with a "
                            "smaller --config.workers if it happens again") from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _in_order(todo: Sequence[ShardTask], submit: Callable[[ShardTask], Future], ahead: int,
              update: Callable[[int], Any]) -> Iterator[ShardResult]:
    """Keeps at most `ahead` tasks submitted, so that memory does not grow with the data set."""
    pending: dict[Future, ShardTask] = {}
    results: dict[ShardTask, ShardResult] = {}
    queue, emit = iter(todo), iter(todo)
    following = next(emit, None)
    while following is not None:
        for task in queue:
            pending[submit(task)] = task
            if len(pending) >= ahead:
                break
        finished, _ = wait(pending, return_when=FIRST_COMPLETED)
        for future in finished:
            task = pending.pop(future)
            results[task] = future.result()
            update(task.stop - task.start)
        while following in results:
            yield results.pop(following)
            following = next(emit, None)
