"""How much memory this process has, as the operating system (Linux) counts it."""

from __future__ import annotations

import os
from pathlib import Path


def current_bytes() -> int:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_bytes() -> int:
    """Largest resident memory of this process so far.

    Not `getrusage`: its `ru_maxrss` starts from what the process that started this one had.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
