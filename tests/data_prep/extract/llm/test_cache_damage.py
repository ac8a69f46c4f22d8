"""A reply cache that a disk or a hand has changed: nothing wrong is used, and what is not hit is kept."""

import contextlib
import multiprocessing
import os
import pathlib
import shutil
import signal

import numpy as np
import pytest

from data_prep.extract.llm import cache_file
from data_prep.extract.llm.cache import FAILED, INVALID, VALID, Cache, Entry, Spent, key_of
from lgdea_jax.errors import UserError

SCOPE = b"s" * 16
KEYS = [key_of(SCOPE, f"report {i}") for i in range(60)]


def entry(i):
    """Of 1 to 6,000 bytes that hardly compress: some need overflow pages."""
    text = np.random.default_rng(i).integers(32, 127, 1 + i * 100).astype(np.uint8).tobytes().decode()
    return Entry((VALID, INVALID, FAILED)[i % 3 if i % 7 == 0 else 0], f"why {i % 5}", f"reply {i} {text}")


ODD = sum(entry(i).status == VALID for i in range(0, 60, 4))


def fill(path):
    cache = Cache(path)
    for i, key in enumerate(KEYS):
        cache.put(key, SCOPE, entry(i), Spent(1, 10, 5, 9, 0.5))
    cache.flag({key: ["odd"] for key in KEYS[::4]})
    cache.book_lost(SCOPE, 2.0)
    return cache


def fill_and_die(path):
    fill(path)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """{kind: folder}: a cache that was closed, and one whose process was killed: all is in its log."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in ("closed", "killed")}
    fill(folders["closed"] / "c").close()
    process = multiprocessing.get_context("fork").Process(target=fill_and_die, args=(folders["killed"] / "c",))
    process.start()
    process.join()
    assert (folders["killed"] / "c-wal").stat().st_size > 100_000
    return folders


def read(path):
    """({key: entry}, what was spent, odd replies)."""
    with Cache(path) as cache:
        statuses = cache.statuses(KEYS)
        found = {key: cache.get(key) for key in statuses}
        assert {key: item.status for key, item in found.items()} == statuses
        return found, cache.spent(SCOPE), cache.totals(SCOPE).flags["odd"]


def damage(path, rng):
    content = bytearray(path.read_bytes())
    place = int(rng.integers(len(content)))
    if rng.random() < 0.75:
        content[place] ^= 1 << int(rng.integers(8))
    else:
        del content[max(place, 1):]
    path.write_bytes(content)
    return len(content)


@pytest.mark.parametrize("kind, times", [("closed", 16), ("killed", 8),
                                         pytest.param("closed", 200, marks=pytest.mark.slow),
                                         pytest.param("killed", 200, marks=pytest.mark.slow)])
def test_damage_takes_no_more_than_what_it_hits(kind, times, made, tmp_path, capsys):
    rng, mended, lost = np.random.default_rng(times), 0, []
    for n in range(times):
        shutil.copytree(made[kind], tmp_path / f"{n}")
        path = tmp_path / f"{n}" / "c"
        target = path.with_name("c-wal") if kind == "killed" and rng.random() < 0.8 else path
        before = target.stat().st_size
        cut = before - damage(target, rng)
        try:
            found, spent, odd = read(path)
        except UserError as error:  # Nothing is left of it.
            assert "no reply of ours can be read" in str(error) and path.stat().st_size < 30_000
            shutil.rmtree(tmp_path / f"{n}")
            continue
        for key, item in found.items():
            assert item == entry(KEYS.index(key))
        mended += "was damaged" in capsys.readouterr().err
        if not cut:
            lost.append(len(KEYS) - len(found))
            assert lost[-1] <= 2 and odd >= ODD - 1 and spent.calls in (0, 59, 60)
        again, _, _ = read(path)
        assert again == found and "damaged" not in capsys.readouterr().err
        shutil.rmtree(tmp_path / f"{n}")
    print(f"\n{kind}: {times} times, {mended} mended, {np.mean(np.array(lost) > 0):.2f} of the flips lost replies: "
          f"{np.mean(lost):.2f} of {len(KEYS)} on average, {max(lost)} at most")
    assert mended >= times // 4


def test_a_changed_row_counts_as_not_asked(tmp_path, capsys):
    with fill(tmp_path / "c") as cache:
        cache._db.execute("DROP TRIGGER replies_changed")
        cache._db.execute("UPDATE replies SET status = ? WHERE key = ?", (INVALID, KEYS[5]))
        assert cache.get(KEYS[5]) is None and cache.get(KEYS[6]) == entry(6)
    found, spent, _ = read(tmp_path / "c")
    assert found.keys() == set(KEYS) - {KEYS[5]} and spent.calls == 60
    assert "59 replies are kept" in capsys.readouterr().err
    assert (tmp_path / "c.damaged").is_file() and (tmp_path / "c").stat().st_mode & 0o077 == 0


def test_batches_under_way_survive(tmp_path):
    from data_prep.extract.llm.runners.batch_ledger import Ledger

    with fill(tmp_path / "c") as cache:
        label, count = Ledger(cache, SCOPE).write_down([(b"k" * 16, "report", 1.0), (b"l" * 16, "other", 1.0)], 0)
        cache._db.execute("DROP TRIGGER replies_changed")
        cache._db.execute("UPDATE replies SET status = ? WHERE key = ?", (INVALID, KEYS[5]))
    with Cache(tmp_path / "c") as cache:
        assert count == 2 and [text for _, text in Ledger(cache, SCOPE).items(label)] == ["report", "other"]
        assert cache.batches_under_way(SCOPE) and [item.label for item in Ledger(cache, SCOPE).under_way()] == [label]


def test_nobody_mends_a_file_through_which_another_asks(tmp_path):
    with fill(tmp_path / "c") as cache:
        cache.claim(b"k" * 16, SCOPE, 1.0)
        cache._db.execute("DROP TRIGGER replies_changed")
        cache._db.execute("UPDATE replies SET status = ? WHERE key = ?", (INVALID, KEYS[5]))
        with pytest.raises(UserError, match="damaged while another command asks through it"):
            Cache(tmp_path / "c")
    assert len(read(tmp_path / "c")[0]) == 59


def test_a_schema_that_is_no_text_is_mended(tmp_path, capsys):
    """SQLite quotes what is damaged in its message."""
    fill(tmp_path / "c").close()
    content = (tmp_path / "c").read_bytes()
    (tmp_path / "c").write_bytes(content.replace(b"AFTER INSERT ON claims", b"AFTER IN\xd3ERT ON claims"))
    assert len(read(tmp_path / "c")[0]) == 60 and "60 replies are kept" in capsys.readouterr().err


def test_mending_that_was_killed_begins_again(tmp_path, monkeypatch):
    """All is in the log, which lies aside already when the new file takes the place of the old one."""
    from data_prep.extract.llm.runners.batch_ledger import Ledger

    (tmp_path / "killed").mkdir()
    with fill(tmp_path / "c") as cache:
        Ledger(cache, SCOPE).write_down([(b"k" * 16, "report", 1.0)], 0)
        cache._db.execute("DROP TRIGGER replies_changed")
        cache._db.execute("UPDATE replies SET status = ? WHERE key = ?", (INVALID, KEYS[5]))
        for file in tmp_path.glob("c*"):
            shutil.copy(file, tmp_path / "killed")
    path, real = tmp_path / "killed" / "c", pathlib.Path.rename

    def rename(old, new):
        if new == path:
            raise KeyboardInterrupt
        return real(old, new)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pathlib.Path, "rename", rename)
        Cache(path)
    assert not (tmp_path / "killed" / "c-wal").exists()
    found, spent, _ = read(path)
    # The row as it was is in the log, too.
    assert found == {key: entry(i) for i, key in enumerate(KEYS)} and spent.calls == 60
    with Cache(path) as cache:
        assert cache.batches_under_way(SCOPE) and len(Ledger(cache, SCOPE).under_way()) == 1


def test_a_log_that_another_process_is_copying_is_not_damaged(made, tmp_path):
    shutil.copytree(made["killed"], tmp_path / "k")
    (tmp_path / "k/c-shm").unlink(missing_ok=True)

    class Busy:
        """SQLite's answers where another process holds the lock of the checkpoint for a while."""

        def __init__(self, db):
            self._db, self.asked = db, 0

        def execute(self, sql):
            self.asked += 1
            return self._db.execute(sql if self.asked > 3 else "SELECT 1, -1, -1")

    with contextlib.closing(cache_file._connect(tmp_path / "k/c")) as db:
        busy = Busy(db)
        assert cache_file._log_is_whole(tmp_path / "k/c", busy) and busy.asked == 4


def test_a_log_is_whole(made, tmp_path):
    """A last transaction that is not whole is no damage; a wrong frame before it is."""
    whole = (made["killed"] / "c-wal").read_bytes()
    frames = (len(whole) - 32) // 4120

    def is_whole(log):
        shutil.copytree(made["killed"], tmp_path / "k")
        (tmp_path / "k/c-shm").unlink(missing_ok=True)
        (tmp_path / "k/c-wal").write_bytes(log)
        with contextlib.closing(cache_file._connect(tmp_path / "k/c")) as db:
            answer = cache_file._log_is_whole(tmp_path / "k/c", db)
        shutil.rmtree(tmp_path / "k")
        return answer

    for cut in (32, 32 + 4120, len(whole) - 4120 * 3, len(whole) - 7, len(whole)):
        assert is_whole(whole[:cut]), cut
    for place in (5, 32 + 9, 32 + 200, 32 + 4120 * (frames // 2) + 20):
        assert not is_whole(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1:]), place
