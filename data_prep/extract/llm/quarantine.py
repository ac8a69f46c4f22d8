"""Into quarantine and out of it: reports that get no reply run after run, and replies that other settings may mend."""

from __future__ import annotations

from collections import Counter

from data_prep.extract.llm.cache import FAILED, INVALID, Cache
from data_prep.extract.llm.clients import client

CUT = "the reply was cut at "  # How reasons begin that are looked for here.
_STUCK = "no reply in "
_NOT_THE_REPORT = (client.UNREACHABLE, client.RATE, client.NOT_SERVED)  # Failures that say nothing about it.


def give_up(cache: Cache, scope: bytes, since: float, max_runs: int) -> Counter[str]:
    """Counts a run for the reports that failed in it, and quarantines those that failed in `max_runs` runs.

    Args:
      cache, scope: of the questions; since: when the run began, seconds since 1970.
      max_runs: runs without a reply after which a report is not asked about any more.

    Returns:
      Why the quarantined ones had failed, with their numbers.
    """
    given_up: Counter[str] = Counter()
    with cache._transaction():
        failed = cache._db.execute("SELECT key, reason FROM replies WHERE scope = ? AND status = ? AND created >= ?",
                                   (scope, FAILED, since)).fetchall()
        for key, reason in failed:
            if reason.startswith(_NOT_THE_REPORT):
                continue
            runs, = cache._db.execute("INSERT INTO stuck (key, scope, runs) VALUES (?, ?, 1) ON CONFLICT (key) DO "
                                      "UPDATE SET runs = runs + 1 RETURNING runs", (key, scope)).fetchone()
            if runs >= max_runs:
                given_up[reason] += 1
                cache._db.execute("UPDATE replies SET status = ?, reason = ? WHERE key = ?",
                                  (INVALID, f"{_STUCK}{runs} runs: {reason}", key))
    return given_up


def reopen(cache: Cache, scope: bytes, max_runs: int, max_tokens: int) -> int:
    """Takes out of quarantine what the present settings may mend; returns the number.

    That is what was given up after fewer runs than `max_runs`, and what was cut below `max_tokens`.
    """
    with cache._transaction():
        stuck = cache._db.execute(
            "UPDATE replies SET status = ? WHERE status = ? AND reason LIKE ? AND key IN "
            "(SELECT key FROM stuck WHERE scope = ? AND runs < ?)",
            (FAILED, INVALID, f"{_STUCK}%", scope, max_runs)).rowcount
        cut = [(FAILED, key) for key, reason in cache._db.execute(
            "SELECT key, reason FROM replies WHERE scope = ? AND status = ? AND reason LIKE ?",
            (scope, INVALID, f"{CUT}%")).fetchall() if int(reason.removeprefix(CUT).split()[0]) < max_tokens]
        cache._db.executemany("UPDATE replies SET status = ? WHERE key = ?", cut)
    return stuck + len(cut)
