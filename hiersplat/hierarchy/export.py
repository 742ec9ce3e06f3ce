"""A run's hierarchy for other programs: labelled Gaussians, the tree, and nodes one by one."""

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from hiersplat.cache import write_atomically
from hiersplat.gaussians.ply import write_ply
from hiersplat.gaussians.splats import Splats
from hiersplat.hierarchy.run import Run
from hiersplat.levels import Level

LABELS = {level: f"node_{level.title}" for level in Level}
"""Property of the ``.ply`` that holds a Gaussian's node id at a level; -1 where it has none."""

Progress = Callable[[int, int], None]
"""Called with the number of files that are written and the number there will be."""


def export_run(
    run: Run,
    out: Path,
    nodes: Level | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Write ``gaussians.ply`` with labels, ``tree.json`` and, on request, one file a node.

    Args:
        run: The finished run.
        out: Folder to write to.
        nodes: Level whose nodes become one ``.ply`` each; nodes without Gaussians get none.
        overwrite: Replace files that are there.
        progress: Told after every file.

    Returns:
        The files that were written.

    Raises:
        ValueError: If the level has no nodes, or a file is there already; nothing is written then.
    """
    ids = [] if nodes is None else run.tree.level_ids(nodes).tolist()
    if nodes is not None and not ids:
        raise ValueError(f"{run.path}: the level {nodes.title} is empty: it has no node")
    members = {node_id: run.tree.gaussians_of(node_id) for node_id in ids}
    files = {
        node_id: out / "nodes" / _file_name(run, node_id)
        for node_id, own in members.items()
        if own.any()
    }
    targets = [out / "gaussians.ply", out / "tree.json", *files.values()]
    existing = [path for path in targets if path.exists()]
    if existing and not overwrite:
        raise ValueError(f"{existing[0]}: exists; choose another --out or give --overwrite")
    tell = progress or (lambda done, total: None)
    labels = {name: run.tree.node_ids[level] for level, name in LABELS.items()}
    (out / "nodes" if files else out).mkdir(parents=True, exist_ok=True)
    write_ply(targets[0], run.splats, labels)
    tell(1, len(targets))
    write_atomically(targets[1], run.tree.to_json().encode())
    for done, (node_id, path) in enumerate(files.items(), start=3):
        tell(done - 1, len(targets))
        own = members[node_id]
        own_labels = {name: values[own] for name, values in labels.items()}
        write_ply(path, chosen_splats(run.splats, torch.from_numpy(own)), own_labels)
    tell(len(targets), len(targets))
    return targets


def chosen_splats(splats: Splats, chosen: Bool[Tensor, " num_gaussians"]) -> Splats:
    """Return the chosen Gaussians."""
    return Splats(**{field.name: getattr(splats, field.name)[chosen] for field in fields(splats)})


def _file_name(run: Run, node_id: int) -> str:
    node = run.tree.node(node_id)
    safe = re.sub(r"[^A-Za-z0-9-]+", "_", node.name or "").strip("_")[:40]
    return f"{node.level.title}_{node_id}{'_' if safe else ''}{safe}.ply"
