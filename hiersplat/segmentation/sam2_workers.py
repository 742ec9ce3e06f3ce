"""Points spread over worker threads on a CPU.

Each worker runs single-threaded: chunks of prompts are independent, and their matrices are
too small to be worth splitting.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float

_POINTS_AT_ONCE = 8
"""Points in a chunk: enough to reuse the weights of the token layers, and about 30 MB."""
_one_at_a_time = threading.Lock()
Result = TypeVar("Result")
Spread = Callable[
    [Callable[[Float[np.ndarray, "points 2"]], Result], Float[np.ndarray, "points 2"]],
    list[Result],
]


@contextmanager
def workers() -> Iterator[ThreadPoolExecutor]:
    """Give as many single-threaded workers as torch has threads, and set those aside meanwhile.

    There is one generator at work at a time then.
    """
    with _one_at_a_time:
        num_threads = torch.get_num_threads()
        # Without this a worker's products would each wake all of torch's threads.
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(
                num_threads, initializer=torch.set_num_threads, initargs=(1,)
            ) as pool:
                yield pool
        finally:
            torch.set_num_threads(num_threads)


@contextmanager
def spreading(device: torch.device) -> Iterator[Spread]:
    """Give a function that applies work to chunks of points and returns the results in order.

    On a CPU workers do it; elsewhere points are one chunk.
    """
    if device.type != "cpu":
        yield lambda work, points: [work(points)]
        return
    num_workers = torch.get_num_threads()
    with workers() as pool:
        yield lambda work, points: list(pool.map(work, _chunks(points, num_workers)))


def _chunks(
    points: Float[np.ndarray, "points 2"], num_workers: int
) -> list[Float[np.ndarray, "points 2"]]:
    size = min(_POINTS_AT_ONCE, -(-len(points) // num_workers))
    return [points[first : first + size] for first in range(0, len(points), size)]
