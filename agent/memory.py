"""How a long-lived process holds its memory: blocks for large frames are kept, what is old is not searched again."""

import ctypes
import gc
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # malloc.h of glibc
KEEP_BYTES = 512 << 20


def keep_frame_memory() -> bool:
    """Tell the C library to reuse large blocks; True where that was possible (glibc), else nothing changes.

    glibc gives blocks of many MB back at once and fetches fresh pages for the next; zeroing those costs about as much
    as receiving a frame. What is kept is bounded by the frames under way.
    """
    if sys.platform != "linux":
        return False
    try:
        library = ctypes.CDLL(None)
        options = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, KEEP_BYTES))
        return all(library.mallopt(option, value) == 1 for option, value in options)
    except (OSError, AttributeError):  # another C library
        return False


def spare_what_is_old() -> None:
    """Let the garbage collector pass over all objects that are there now; for programs, once everything is loaded.

    A full collection goes through every object of every library and stops all threads for a tenth of a second.
    """
    gc.collect()
    gc.freeze()


def peak_gib() -> float:
    """Largest resident memory of this process so far, in GiB; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
