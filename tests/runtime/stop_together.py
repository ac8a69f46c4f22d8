"""A run of many processes without a model: prints the step after which this process stopped, and the signal.

    python tests/runtime/stop_together.py COORDINATOR NUMBER_OF_PROCESSES PROCESS STEP

STEP is when the signal comes, 0 for never; 40 steps at most.
"""

import signal
import sys

from lgdea_jax.runtime import sharding
from lgdea_jax.runtime.guards import StopSignals

if __name__ == "__main__":
    coordinator, count, process, when = sys.argv[1:]
    sharding.start_hosts(coordinator=coordinator, num_processes=int(count), process_id=int(process))
    with StopSignals() as stop:
        stopped = 0
        for step in range(1, 41):
            if step == int(when):
                signal.raise_signal(signal.SIGTERM)
            if stop.after(step):
                stopped = step
                break
        print(stopped, stop.number, int(stop.agreed()))
