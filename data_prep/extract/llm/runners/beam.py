"""The extraction of `runner` in an Apache Beam pipeline, on as many machines as its runner has.

The reports that have no answer yet are cut into chunks (`chunks`), files in a folder that all workers mount. A worker
gives a chunk to `online.extract`, the same function that runs on one machine, with a reply cache of the chunk's own;
these caches are then taken into the cache of the job. With Beam's direct runner a chunk's cache lies in the folder from
the start, and `kill -9` loses no finished reply. Workers of other runners keep it on their own disk until the chunk is
done (SQLite's WAL is not for network disks): killed, they lose at most the replies of the chunks under way.

Limits a minute and the concurrency hold for each worker. A limit on the cost is shared out over the chunks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from data_prep.extract.llm.cache import FAILED, INVALID, VALID, Cache
from data_prep.extract.llm.jobs import Job
from data_prep.extract.llm.pricing import FREE
from data_prep.extract.llm.runners import chunks, online
from data_prep.extract.llm.runners.online import CostProgress, Summary
from data_prep.extract.llm.survey import Asked, unfinished
from lgdea_jax.errors import UserError
from lgdea_jax.runtime import beam
from lgdea_jax.runtime.files import remove_locked

_NOTHING = 1e-9  # A limit on the cost that admits no request; 0 would mean none.
_ADDED = ("valid", "quarantined", "failed", "calls", "tokens_in", "tokens_out", "cost")
_COUNTED = ("dropped", "repairs", "flags", "reasons")


@dataclasses.dataclass(frozen=True)
class AskChunk:
    """Asks the questions of a chunk, given its name. Picklable.

    Attributes:
      job: with the cache of the whole run; the key is each worker's own, from its environment.
      folder: of the chunks; in_place: chunk caches may lie there while they are written to.
      local: whether the endpoint is, as the reports' terms were checked.
      share: what a question of the chunk may cost, 0 for no limit.
    """

    job: Job
    folder: str
    in_place: bool
    local: bool
    share: float

    def __call__(self, name: str) -> None:
        chunk, done = (Path(self.folder) / f"{name}{ending}" for ending in (".json", ".done"))
        if done.exists():
            return  # Beam may give the same work out again.
        try:
            asked = [self.job.question(*item) for item in json.loads(chunk.read_text(encoding="utf-8"))]
        except FileNotFoundError:
            return  # A later run took it back.
        kept = Path(self.folder) / f"{name}.sqlite"
        with contextlib.ExitStack() as stack:
            file = kept
            if not self.in_place:
                file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / kept.name
            settings = dataclasses.replace(self.job.settings, max_cost=self.share * len(asked))
            job = dataclasses.replace(self.job, cache=str(file), settings=settings)
            if self.local and not job.endpoint.local:
                # The terms of the reports were checked for a local address; here the name resolves to another one.
                raise UserError(f"{job.settings.base_url} is neither on this host nor in a private network of "
                                "this worker")
            try:
                summary = online.extract(lambda: asked, job)
                with Cache(file) as cache:  # Not the summary: this may have been a second try.
                    counts, spent = cache.count(job.scope), cache.spent(job.scope)
            finally:
                if not self.in_place and file.exists():
                    shutil.copyfile(file, kept.with_suffix(".copying"))
                    os.replace(kept.with_suffix(".copying"), kept)
        chunks.write(done, {
            "valid": counts[VALID], "quarantined": counts[INVALID], "failed": counts[FAILED], "calls": spent.calls,
            "tokens_in": spent.tokens_in, "tokens_out": spent.tokens_out, "cost": spent.cost,
            **{name: getattr(summary, name) for name in _COUNTED}})


def extract(reports: Callable[[], Iterable[Asked]], job: Job, options: Sequence[str], *, progress: bool = False
            ) -> Summary:
    """Asks about every report that has no answer yet, in a pipeline; see `online.extract`.

    Args:
      reports, job, progress: as there. Chunks lie in a folder beside the job's cache.
      options: of Beam, see `beam.run`.

    Raises:
      UserError: as there; or another process is asking about the same reports.
    """
    started = time.monotonic()
    folder = chunks.folder_of(job)
    with chunks.own(folder), Cache(job.cache) as cache:
        chunks.absorb(folder, cache)
        cache.reap()
        names, pending = chunks.cut(unfinished(reports(), job, cache, Counter()), folder, job, cache)
        share = 0.0
        if job.settings.max_cost and pending:
            share = max(_NOTHING, job.settings.max_cost - cache.spent(job.scope).cost) / pending
        total: Counter[str] = Counter()
        counts = {name: Counter() for name in _COUNTED}
        try:
            if names:
                work = AskChunk(job, str(folder), beam.is_direct(options), job.endpoint.local, share)
                with _shown(folder, pending, job, progress):
                    beam.run(names, work, folder, options)
        finally:
            for done in folder.glob("*.done"):
                values = json.loads(done.read_text(encoding="utf-8"))
                total.update({name: values[name] for name in _ADDED})
                for name in _COUNTED:
                    counts[name].update(values[name])
            chunks.absorb(folder, cache)
        remove_locked(folder)
    asked = sum(total[name] for name in ("valid", "quarantined", "failed"))
    return Summary(pending, **{name: total[name] for name in _ADDED[:3]}, left=pending - asked,
                   **{name: total[name] for name in _ADDED[3:]}, seconds=time.monotonic() - started, **counts)


@contextlib.contextmanager
def _shown(folder: Path, pending: int, job: Job, active: bool) -> Iterator[None]:
    """Shows progress by the chunks that are done while the pipeline runs."""
    bar, end = CostProgress(pending, (job.price or FREE).currency, active=active), threading.Event()

    def look(last: bool = False) -> None:
        values = [json.loads(done.read_text(encoding="utf-8")) for done in folder.glob("*.done")]
        bar.show(sum(value[name] for value in values for name in _ADDED[:3]),
                 sum(value["cost"] for value in values), last=last)

    def watch() -> None:
        while not end.wait(2.0):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
        look(last=True)
