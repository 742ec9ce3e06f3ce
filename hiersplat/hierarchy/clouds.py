"""Nodes as point clouds and boxes, by Open3D: one point a Gaussian, or one a voxel and node."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from hiersplat.cache import write_atomically
from hiersplat.gaussians.splats import Splats
from hiersplat.hierarchy.sheets import node_colors
from hiersplat.hierarchy.tree import SceneTree
from hiersplat.levels import UNLABELLED, Level

if TYPE_CHECKING:
    import open3d

MIN_OPACITY = 0.1
"""Gaussians that are more transparent than this are left out: they show nothing."""


@dataclass(frozen=True)
class NodeCloud:
    """Points of one level, each of one node."""

    points: Float[np.ndarray, "num_points 3"]
    node_ids: Int[np.ndarray, " num_points"]
    agreement: Float32[np.ndarray, " num_points"]
    """How far the views agree with the point's node; NaN where no mask shows it."""
    voxel_size: float | None
    """Edge of the voxels of which each holds one point a node; ``None`` if all points are there."""

    @property
    def colors(self) -> UInt8[np.ndarray, "num_points 3"]:
        """One colour a node, as in the picture sheets."""
        return node_colors(self.node_ids)


def node_cloud(
    splats: Splats,
    tree: SceneTree,
    level: Level,
    agreement: Float32[np.ndarray, " num_gaussians"],
    max_points: int,
    node_id: int | None = None,
) -> NodeCloud:
    """Return the centres of the Gaussians that show a node of one level.

    Args:
        splats: The scene.
        tree: Whose nodes they belong to.
        level: Small, part or whole.
        agreement: Of every Gaussian at this level.
        max_points: Beyond this many, Open3D's voxel grid averages points of the same node.
        node_id: Show this node only.

    Raises:
        ValueError: If the level has no nodes, or nothing of them is opaque enough to be seen.
    """
    if not len(tree.level_ids(level)):
        raise ValueError(f"the level {level.title} is empty: the tree has no node there")
    ids = tree.node_ids[level]
    is_shown = ids != UNLABELLED if node_id is None else ids == node_id
    shown = np.flatnonzero(is_shown & (splats.opacities.numpy() >= MIN_OPACITY))
    if not len(shown):
        what = f"the level {level.title}" if node_id is None else f"node {node_id}"
        raise ValueError(f"{what} has no Gaussian with an opacity of {MIN_OPACITY} or more")
    points = splats.means.double().numpy()[shown]
    cloud = NodeCloud(points, ids[shown], agreement[shown], None)
    if len(shown) <= max_points:
        return cloud
    # A surface fills about (extent / voxel) squared voxels; from there, coarser until it fits.
    extent = float(np.ptp(points, axis=0).max())
    voxel_size = max(extent, 1e-9) / np.sqrt(max_points)
    while True:
        reduced = _voxel_grid(cloud, voxel_size)
        # Voxels cannot bring the points below one a node.
        if len(reduced.points) <= max(max_points, len(np.unique(cloud.node_ids))):
            return reduced
        voxel_size *= 1.25


def _voxel_grid(cloud: NodeCloud, voxel_size: float) -> NodeCloud:
    """Average the points of every voxel, node by node so that ids stay what they are."""
    import open3d

    order = np.argsort(cloud.node_ids, kind="stable")
    ids, starts = np.unique(cloud.node_ids[order], return_index=True)
    low, high = cloud.points.min(axis=0), cloud.points.max(axis=0) + voxel_size
    points, node_ids, agreement = [], [], []
    for node_id, members in zip(ids, np.split(order, starts[1:]), strict=True):
        part = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(cloud.points[members]))
        reduced, _, groups = part.voxel_down_sample_and_trace(voxel_size, low, high)
        points.append(np.asarray(reduced.points))
        node_ids.append(np.full(len(reduced.points), node_id))
        first = members[[np.asarray(group)[0] for group in groups]]
        agreement.append(cloud.agreement[first])
    return NodeCloud(
        np.concatenate(points), np.concatenate(node_ids), np.concatenate(agreement), voxel_size
    )


def write_cloud(path: Path, cloud: NodeCloud) -> None:
    """Write a ``.ply`` of coloured points with the properties ``node_id`` and ``agreement``."""
    kinds: list[tuple[str, str]] = [(axis, "<f4") for axis in "xyz"]
    kinds += [(color, "u1") for color in ("red", "green", "blue")]
    kinds += [("node_id", "<i4"), ("agreement", "<f4")]
    rows = np.empty(len(cloud.points), kinds)
    for place, axis in enumerate("xyz"):
        rows[axis] = cloud.points[:, place]
    colors = cloud.colors
    for place, color in enumerate(("red", "green", "blue")):
        rows[color] = colors[:, place]
    rows["node_id"], rows["agreement"] = cloud.node_ids, cloud.agreement
    names = {"<f4": "float", "u1": "uchar", "<i4": "int"}
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    header += [f"property {names[kind]} {name}" for name, kind in kinds]
    text = "\n".join([*header, "end_header\n"])
    write_atomically(path, text.encode("ascii") + rows.tobytes())


def node_boxes(cloud: NodeCloud) -> dict[int, tuple[list[float], list[float]]]:
    """Return the smallest and largest coordinates of every node's points, by node id."""
    import open3d

    boxes = {}
    for node_id in np.unique(cloud.node_ids):
        own = cloud.points[cloud.node_ids == node_id]
        box = open3d.geometry.AxisAlignedBoundingBox.create_from_points(
            open3d.utility.Vector3dVector(own)
        )
        boxes[int(node_id)] = (box.get_min_bound().tolist(), box.get_max_bound().tolist())
    return boxes


def box_lines(
    boxes: dict[int, tuple[list[float], list[float]]],
) -> "open3d.geometry.LineSet":
    """Return the edges of all boxes in the colours of their nodes."""
    import open3d

    lines = open3d.geometry.LineSet()
    for node_id, (low, high) in boxes.items():
        box = open3d.geometry.AxisAlignedBoundingBox(np.array(low), np.array(high))
        box.color = node_colors([node_id])[0] / 255
        lines += open3d.geometry.LineSet.create_from_axis_aligned_bounding_box(box)
    return lines


def write_lines(path: Path, lines: "open3d.geometry.LineSet") -> None:
    """Write the edges of boxes as a ``.ply`` of vertices and edges.

    Raises:
        OSError: If the file cannot be written.
    """
    import open3d

    partial = path.with_name(f".{path.name}.partial.ply")
    if not open3d.io.write_line_set(partial, lines):
        partial.unlink(missing_ok=True)
        raise OSError(f"{path}: cannot be written; free some space or choose another folder")
    partial.replace(path)


def show(clouds: dict[str, NodeCloud], title: str) -> None:
    """Open Open3D's viewer on clouds and the boxes of their nodes; returns when it is closed.

    Raises:
        ValueError: If no window can be opened.
    """
    import open3d

    drawn: list[Any] = []
    for cloud in clouds.values():
        points = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(cloud.points))
        points.colors = open3d.utility.Vector3dVector(cloud.colors / 255)
        drawn += [points, box_lines(node_boxes(cloud))]
    viewer = open3d.visualization.Visualizer()
    if not viewer.create_window(title):
        raise ValueError("no window can be opened here; leave --show out and open the .ply files")
    for geometry in drawn:
        viewer.add_geometry(geometry)
    viewer.run()
    viewer.destroy_window()
