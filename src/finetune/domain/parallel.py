"""Large arrays on several cores of the machine."""

from __future__ import annotations

from collections.abc import Callable

# Below this many cells threads bring little, and what they need beside the input would show.
_LARGE = 1 << 23
_THREADS = 4
_PARTS = 4 * _THREADS


def in_parts(shape: tuple[int, ...], work: Callable[[slice], object]) -> None:
    """Call ``work`` on consecutive parts of the rows, up to four at a time where there are millions of cells.

    Parameters
    ----------
    shape
        Shape (n, K) of the rows.
    work
        Takes a slice of rows, and writes what it finds about each row to a place of that row: so the result
        cannot depend on the number of cores.

    Raises
    ------
    BaseException
        What ``work`` raised on the first part in the order of the rows.

    Notes
    -----
    Threads, because numpy releases the interpreter while it computes.  Small inputs stay on the caller's
    thread.

    Examples
    --------
    >>> import numpy as np
    >>> rows, sums = np.ones((1 << 21, 4)), np.empty(1 << 21)
    >>> def add_up(part):
    ...     sums[part] = rows[part].sum(axis=1)
    >>> in_parts(rows.shape, add_up)
    >>> bool((sums == 4.0).all())
    True
    """
    n, k = shape
    if n * k < _LARGE:
        work(slice(0, n))
        return
    from concurrent.futures import ThreadPoolExecutor  # slow to import, and for large inputs only

    step = -(-n // _PARTS)
    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(work, (slice(start, min(start + step, n)) for start in range(0, n, step))):
            pass
