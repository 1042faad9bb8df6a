"""Loading of what takes a second: libraries of arrays and tables, for small sums."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

THREADS = "OPENBLAS_NUM_THREADS"


@contextmanager
def for_small_sums() -> Iterator[None]:
    """Load without looking for garbage, and let products of matrices run in one thread.

    A page multiplies matrices of hundreds of rows, once: a second thread gains nothing, waits for
    the first one and, beside other work, burns up to a second doing so. A number of threads that
    somebody set stays. Workers started later are not concerned: the variable is read when NumPy and
    SciPy load, and gone behind the block.
    """
    collected, own = gc.isenabled(), THREADS not in os.environ
    gc.disable()
    if own:
        os.environ[THREADS] = "1"
    try:
        yield
    finally:
        if own:
            os.environ.pop(THREADS, None)
        if collected:
            gc.freeze()
            gc.enable()
