"""Worker processes that end with the process that started them."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Sequence


def end_with_parent(*, ignore: Sequence[int] = (signal.SIGINT,)) -> None:
    """Call it first in a worker of `multiprocessing`.

    A parent that is killed stops nobody: its workers would wait for ever for work. Signals that reach the whole process
    group (Ctrl-C, a scheduler's SIGTERM) are the parent's to handle, which may need its workers until it has saved.

    Args:
      ignore: signals that this process leaves to its parent.
    """
    for number in ignore:
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
