"""Free TCP ports for daemons that start in a moment."""

import random
import socket

# below the range from which the system hands out ports by itself (Linux: 32768 and up, others: 49152 and up): a port
# found there is not some connection's own before the daemon has it
FIRST, LAST = 15_000, 32_000
TRIES = 1_000


def free_ports(count: int) -> list[int]:
    """Different ports of loopback at which nothing listens.

    Raises
    ------
    OSError
        If there are no more.
    """
    found: list[int] = []
    for port in random.sample(range(FIRST, LAST), TRIES):
        if len(found) == count:
            break
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    if len(found) < count:
        raise OSError(f"no {count} free ports between {FIRST} and {LAST} on this machine")
    return found
