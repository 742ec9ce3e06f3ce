"""What a run took and made, as one small JSON file beside the hierarchy."""

import json
import resource
import sys
from pathlib import Path

from hiersplat.cache import write_atomically
from hiersplat.hierarchy.tree import SceneTree
from hiersplat.levels import Level
from hiersplat.plugin.datamanager import HiersplatDataManager


def peak_memory_mb() -> float:
    """Return the largest resident size of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kilobytes, macOS bytes.
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def write_summary(
    path: Path, tree: SceneTree, manager: HiersplatDataManager, seconds: dict[str, float]
) -> None:
    """Write seconds a stage, sizes and counts.

    Args:
        path: The file to write.
        tree: The finished hierarchy.
        manager: Whose views were segmented.
        seconds: Seconds a stage, in the order they were spent.
    """
    prepared = manager.prepared
    sizes = [prepared.pyramid_path(index).stat().st_size for index in range(len(prepared))]
    summary = {
        "nodes": {level.title: len(tree.level_ids(level)) for level in Level},
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "gaussians": tree.num_gaussians,
        "views": len(prepared),
        "peak_memory_mb": round(peak_memory_mb(), 1),
        "cache_bytes_per_view": sum(sizes) / len(sizes),
        "segmenter": manager.config.segmentation.segmenter,
        "features": manager.config.features.features,
    }
    write_atomically(path, json.dumps(summary, indent=2).encode())
