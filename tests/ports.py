"""Free ports on loopback for real sockets.

Below the range from which the system hands out ports by itself, each worker of a parallel run in a range of its own,
and none twice in a row: a port that one test has just given back is not another test's next one, whose daemon would
then be heard by a driver that still calls for the first.
"""

import itertools
import os
import socket

FIRST, PER_WORKER, WORKERS = 12_000, 4_000, 5
_worker = int("".join(filter(str.isdigit, os.environ.get("PYTEST_XDIST_WORKER", ""))) or 0) % WORKERS
_numbers = itertools.count(os.getpid() * 7)


def free_endpoints(*names: str) -> dict[str, str]:
    """One free endpoint for each name; all different."""
    return {name: f"tcp://127.0.0.1:{_free()}" for name in names}


def _free() -> int:
    for _ in range(PER_WORKER):
        port = FIRST + _worker * PER_WORKER + next(_numbers) % PER_WORKER
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no free port in the {PER_WORKER} of worker {_worker}")
