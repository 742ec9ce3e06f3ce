"""Run compiled kernels on several threads, undisturbed.

The kernels release the interpreter's lock, so ordinary threads run them side by side. Numba's own
thread pool is not used: without libgomp it aborts when two threads render at once, its OpenMP
threads fight with torch's over the cores, and its parallel compiler takes most of the first run.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import torch

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_pools_lock = threading.Lock()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Switch the thread's trace function off, and on again at the end.

    The viewer interrupts a rendering by raising from ``sys.settrace``; inside numba that turns into
    a ``SystemError`` that kills its thread for good. An interruption waits until after the kernels.
    """
    trace = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(trace)


def num_workers() -> int:
    """Threads that share a rendering: as many as torch uses."""
    return torch.get_num_threads()


def _pool(count: int) -> ThreadPoolExecutor:
    # Threads do not survive a fork, so a child process makes its own.
    key = (os.getpid(), count)
    with _pools_lock:
        if key not in _pools:
            _pools[key] = ThreadPoolExecutor(count, thread_name_prefix="hiersplat-kernel")
        return _pools[key]


def in_shares(kernel: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call ``kernel(share, num_shares, *arguments)`` for every share, side by side."""
    count = num_workers()
    return _run([(share, count, *arguments) for share in range(count)], kernel)


def in_given_shares(
    kernel: Callable[..., Any], shares: Sequence[tuple[Any, ...]], *arguments: Any
) -> list[Any]:
    """Call ``kernel(share, num_shares, *shares[share], *arguments)`` for every share."""
    calls = [(i, len(shares), *share, *arguments) for i, share in enumerate(shares)]
    return _run(calls, kernel)


def side_by_side(kernel: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call ``kernel(*arguments)`` on several workers; the kernel itself divides the work.

    A call made once all work is taken must do no harm. Results come in no particular order.
    """
    return _run([arguments] * num_workers(), kernel)


def _run(calls: list[tuple[Any, ...]], kernel: Callable[..., Any]) -> list[Any]:
    """Make all calls and return their results.

    The calling thread takes calls as well and never waits for a thread that has not begun: on a
    busy machine it may do everything alone before another thread is given a core.
    """
    left = iter(range(len(calls)))
    results: list[Any] = [None] * len(calls)

    def work() -> None:
        # next() of a range iterator is atomic under the interpreter's lock.
        for index in left:
            results[index] = kernel(*calls[index])

    pool = _pool(len(calls) - 1) if len(calls) > 1 else None
    others = [pool.submit(work) for _ in calls[1:]] if pool else []
    try:
        work()
    finally:
        # Whatever happens here, no thread may go on writing to arrays that are given up.
        begun = [other for other in others if not other.cancel()]
        wait(begun)
    for other in begun:
        other.result()
    return results
