"""Batches that fit what is free; out of memory costs the batch that failed, not the image."""

import ctypes
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


def in_batches(
    work: Callable[[Float[np.ndarray, "points 2"]], Result],
    points: Float[np.ndarray, "points 2"],
    size: int,
) -> list[Result]:
    """Work on points batch after batch, with smaller batches once memory has run out.

    Batches that were finished are kept; the one that failed is done again in halves.

    Raises:
        MemoryError: If a single point does not fit; the message names three ways out.
    """
    results: list[Result] = []
    done, said = 0, False
    while done < len(points):
        batch = points[done : done + size]
        try:
            results.append(work(batch))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise MemoryError(
                    "out of memory with one point a batch; choose a smaller model_size, "
                    "a smaller points_per_batch, or a coarser grid (points_per_side)"
                ) from error
            size = len(batch) // 2
            if not said:
                logger.warning(
                    "out of memory with %d points a batch; going on with %d or fewer",
                    len(batch),
                    size,
                )
                said = True
        else:
            done += len(batch)
            continue
        # Outside the handler, where the traceback no longer holds the tensors.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return results


def planned_batch(most: int, bytes_each: int, device: torch.device) -> int:
    """Return how many points at once fit half of the free memory: one at least, ``most`` at most.

    On a CPU this matters more than halving does: a system that overcommits ends the process
    instead of refusing memory.
    """
    free = free_memory(device)
    fits = most if free is None else max(1, free // (2 * bytes_each))
    if fits < most:
        logger.info("%d points a batch instead of %d fit the free memory", fits, most)
    return min(most, fits)


def free_memory(device: torch.device) -> int | None:
    """Return the free bytes of a device, or of this machine; ``None`` where they are not told."""
    if device.type == "cuda":
        # What torch holds in reserve is free to us as well.
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserve
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    told = (line.split() for line in lines if line.startswith("MemAvailable:"))
    return next((1024 * int(words[1]) for words in told), None)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that host or device memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text or "bad_alloc" in text


def return_freed_memory() -> None:
    """Give memory that has been freed back to the system.

    The C library keeps what its threads have freed for themselves, which no other thread can
    use: more than 100 MB after an image has been encoded. Libraries without this call, such as
    those of other systems, keep less.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
