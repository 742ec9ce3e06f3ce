"""The scene tree: nodes of three levels with stable ids, and three node ids for every Gaussian.

Node ids are unique across levels and do not change within a run. A Gaussian carries either all
three ids or none (``UNLABELLED`` at every level), and its part and whole are the parents of its
small node, so nesting holds by construction and is checked whenever a tree is made.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from hiersplat.levels import UNLABELLED, Level

_FORMAT = "hiersplat-scene-tree"
_VERSION = 1


@dataclass(frozen=True)
class Node:
    """One segment of the scene."""

    id: int
    """Unique across levels, at least 0."""
    level: Level
    """Small, part or whole."""
    parent: int
    """Id of the node one level up; ``UNLABELLED`` for wholes."""
    num_gaussians: int = 0
    """Number of Gaussians that carry this id."""
    bbox_min: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Smallest coordinates of the Gaussians' centres, in world units."""
    bbox_max: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Largest coordinates of the Gaussians' centres, in world units."""
    views_seen: int = 0
    """Number of views in which the node is visible under a mask."""
    agreement: float = 0.0
    """How well masks of the same level match the node, in [0, 1]: the best overlap (IoU) in each
    view, averaged over the node's labelled pixels."""
    name: str | None = None
    """What the node is called, when somebody or something named it."""


@dataclass(frozen=True)
class SceneTree:
    """Nodes of three levels, and the small, part and whole node of every Gaussian.

    Raises:
        ValueError: If an id occurs twice, a parent is missing or of the wrong level, or the ids
            of a Gaussian are not nested.

    Example:
        >>> nodes = [Node(0, Level.WHOLE, -1), Node(1, Level.PART, 0), Node(2, Level.SMALL, 1)]
        >>> tree = SceneTree(tuple(nodes), np.array([[2, -1], [1, -1], [0, -1]], np.int32))
        >>> tree.ancestors(2)
        (1, 0)
        >>> tree.labels(Level.SMALL).tolist()
        [0, -1]
    """

    nodes: tuple[Node, ...]
    """All nodes, ordered by id."""
    node_ids: Int[np.ndarray, "3 num_gaussians"] = field(repr=False, compare=False)
    """Node id of every Gaussian per level; ``UNLABELLED`` at all levels where it has none."""

    def __post_init__(self):
        """Order the nodes by id and check what the class promises."""
        object.__setattr__(self, "nodes", tuple(sorted(self.nodes, key=lambda node: node.id)))
        object.__setattr__(self, "node_ids", np.asarray(self.node_ids, np.int32))
        _check_nodes(self.nodes)
        _check_node_ids(self)

    def __len__(self) -> int:
        """Return the number of nodes of all levels."""
        return len(self.nodes)

    @property
    def num_gaussians(self) -> int:
        """Number of Gaussians, labelled or not."""
        return self.node_ids.shape[1]

    @cached_property
    def _by_id(self) -> dict[int, Node]:
        return {node.id: node for node in self.nodes}

    @cached_property
    def _children(self) -> dict[int, tuple[int, ...]]:
        children: dict[int, list[int]] = {node.id: [] for node in self.nodes}
        for node in self.nodes:
            if node.parent != UNLABELLED:
                children[node.parent].append(node.id)
        return {parent: tuple(ids) for parent, ids in children.items()}

    def node(self, node_id: int) -> Node:
        """Return the node with an id.

        Raises:
            ValueError: If there is no such node.
        """
        try:
            return self._by_id[int(node_id)]
        except KeyError:
            known = f"0 to {self.nodes[-1].id}" if self.nodes else "none: the tree is empty"
            raise ValueError(f"the tree has no node {node_id} (ids: {known})") from None

    def children(self, node_id: int) -> tuple[int, ...]:
        """Ids of the nodes one level down; none for small nodes."""
        return self._children[self.node(node_id).id]

    def parent(self, node_id: int) -> int | None:
        """Id of the node one level up; ``None`` for wholes."""
        parent = self.node(node_id).parent
        return None if parent == UNLABELLED else parent

    def ancestors(self, node_id: int) -> tuple[int, ...]:
        """Ids on the way up, nearest first, without the node itself."""
        path = []
        parent = self.parent(node_id)
        while parent is not None:
            path.append(parent)
            parent = self.parent(parent)
        return tuple(path)

    def descendants(self, node_id: int) -> tuple[int, ...]:
        """Ids of everything below a node, its children first."""
        found = list(self.children(node_id))
        for child in found:
            found.extend(self.children(child))
        return tuple(found)

    def level_ids(self, level: Level) -> Int[np.ndarray, " num_nodes"]:
        """Node ids of one level in ascending order; their order gives :meth:`labels`."""
        return np.array([node.id for node in self.nodes if node.level == level], np.int32)

    def labels(self, level: Level) -> Int[np.ndarray, " num_gaussians"]:
        """Label of every Gaussian at one level, contiguous from 0: an index into `level_ids`."""
        ids, own = self.level_ids(level), self.node_ids[level]
        return np.where(own == UNLABELLED, UNLABELLED, np.searchsorted(ids, own)).astype(np.int32)

    def gaussians_of(self, node_id: int) -> Bool[np.ndarray, " num_gaussians"]:
        """Which Gaussians belong to a node."""
        return self.node_ids[self.node(node_id).level] == node_id

    def with_names(self, names: Mapping[int, str]) -> "SceneTree":
        """Return a tree in which the given nodes are called by new names.

        Raises:
            ValueError: If an id does not exist.
        """
        for node_id in names:
            self.node(node_id)
        nodes = [replace(node, name=names.get(node.id, node.name)) for node in self.nodes]
        return replace(self, nodes=tuple(nodes))

    def with_node_ids(
        self,
        small_ids: Int[np.ndarray, " num_gaussians"],
        means: Float[np.ndarray, "num_gaussians 3"],
    ) -> "SceneTree":
        """Return a tree with the same nodes in which Gaussians belong to other small nodes.

        Parts and wholes follow from the small ids; counts and boxes are taken anew, and a node
        left without Gaussians stays, with count 0.

        Raises:
            ValueError: If an id is not that of a small node.
        """
        node_ids = self.lineage(small_ids)
        nodes = []
        for node in self.nodes:
            own = means[node_ids[node.level] == node.id]
            low, high = bounding_box(own)
            nodes.append(replace(node, num_gaussians=len(own), bbox_min=low, bbox_max=high))
        return replace(self, nodes=tuple(nodes), node_ids=node_ids)

    def lineage(self, small_ids: Int[np.ndarray, " num"]) -> Int[np.ndarray, "3 num"]:
        """Small, part and whole ids that follow from small ids; ``UNLABELLED`` stays.

        Raises:
            ValueError: If an id is not that of a small node.
        """
        smalls = self.level_ids(Level.SMALL)
        unknown = np.setdiff1d(small_ids, np.append(smalls, UNLABELLED))
        if unknown.size:
            raise ValueError(f"{unknown[0]} is not the id of a small node of this tree")
        # One more row, so that UNLABELLED (-1) finds itself at the end.
        table = np.full(((self.nodes[-1].id if self.nodes else -1) + 2, 3), UNLABELLED, np.int32)
        for node_id in smalls.tolist():
            table[node_id] = (node_id, *self.ancestors(node_id))
        return np.ascontiguousarray(table[small_ids].T)

    def to_json(self) -> str:
        """Node table as JSON; the ids of the Gaussians are kept apart (see :meth:`to_arrays`)."""
        nodes = [
            {**asdict(node), "level": node.level.title, "children": list(self.children(node.id))}
            for node in self.nodes
        ]
        table = {"format": _FORMAT, "version": _VERSION, "num_gaussians": self.num_gaussians}
        return json.dumps({**table, "nodes": nodes}, indent=1)

    @classmethod
    def from_json(cls, text: str, node_ids: Int[np.ndarray, "3 num_gaussians"]) -> "SceneTree":
        """Rebuild a tree from its JSON and the ids of its Gaussians.

        Raises:
            ValueError: If the text is no scene tree, or does not fit the ids.
        """
        try:
            table = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"not a scene tree: {error}") from None
        if not isinstance(table, dict) or table.get("format") != _FORMAT:
            raise ValueError(f"not a scene tree: 'format' is not {_FORMAT!r}")
        if table.get("version") != _VERSION:
            raise ValueError(
                f"scene tree of version {table.get('version')}; this program reads {_VERSION}"
            )
        node_ids = np.asarray(node_ids)
        if node_ids.shape != (3, table.get("num_gaussians")):
            raise ValueError(
                f"the scene tree is of {table.get('num_gaussians')} Gaussians, "
                f"but the ids have shape {node_ids.shape}"
            )
        return cls(tuple(_node_from_json(entry) for entry in table.get("nodes", [])), node_ids)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays for a checkpoint or ``.npz``: ``node_ids``, and the node table as UTF-8 JSON."""
        table = np.frombuffer(self.to_json().encode(), np.uint8).copy()
        return {"node_ids": self.node_ids, "node_table": table}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "SceneTree":
        """Rebuild a tree from :meth:`to_arrays`.

        Raises:
            ValueError: If an array is missing or does not hold a scene tree.
        """
        missing = [name for name in ("node_ids", "node_table") if name not in arrays]
        if missing:
            raise ValueError(f"not a scene tree: no array {missing[0]!r}")
        try:
            text = np.asarray(arrays["node_table"], np.uint8).tobytes().decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"not a scene tree: node_table: {error}") from None
        return cls.from_json(text, arrays["node_ids"])

    def save(self, path: Path) -> None:
        """Write ``path`` (JSON) and, beside it, ``.npz`` with the ids of the Gaussians."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path.with_suffix(".npz"), node_ids=self.node_ids)
        path.write_text(self.to_json())

    @classmethod
    def load(cls, path: Path) -> "SceneTree":
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: If the JSON file or the ``.npz`` beside it is missing.
            ValueError: If they hold no scene tree; the message names the file.
        """
        text = path.read_text()
        arrays_path = path.with_suffix(".npz")
        try:
            with np.load(arrays_path, allow_pickle=False) as arrays:
                return cls.from_json(text, arrays["node_ids"])
        except FileNotFoundError:
            raise FileNotFoundError(f"{arrays_path}: the ids that belong to {path.name}") from None
        except Exception as error:  # numpy raises many kinds on a file that is no .npz
            raise ValueError(f"{path}: {error}") from None


def bounding_box(
    points: Float[np.ndarray, "num_points 3"],
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Smallest and largest coordinates; zeros where there are no points."""
    if not len(points):
        return (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)
    low, high = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])


def _node_from_json(entry: dict) -> Node:
    try:
        values = {name: entry[name] for name in Node.__dataclass_fields__}
        values["level"] = Level.parse(values["level"])
        for name in ("bbox_min", "bbox_max"):
            x, y, z = values[name]
            values[name] = (float(x), float(y), float(z))
        return Node(**values)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not a node of a scene tree ({error}): {str(entry)[:80]}") from None


def _check_nodes(nodes: tuple[Node, ...]) -> None:
    by_id = {node.id: node for node in nodes}
    if len(by_id) != len(nodes):
        ids = [node.id for node in nodes]
        raise ValueError(f"node id {max(ids, key=ids.count)} occurs twice")
    for node in nodes:
        if node.id < 0:
            raise ValueError(f"node id {node.id} is negative")
        coarser = node.level.coarser
        if coarser is None:
            if node.parent != UNLABELLED:
                raise ValueError(f"node {node.id} is a whole but has parent {node.parent}")
        elif node.parent not in by_id or by_id[node.parent].level != coarser:
            raise ValueError(
                f"node {node.id} is a {node.level.title} but its parent {node.parent} "
                f"is no {coarser.title}"
            )


def _check_node_ids(tree: SceneTree) -> None:
    ids = tree.node_ids
    if ids.ndim != 2 or len(ids) != 3:
        raise ValueError(f"node ids must have shape (3, number of Gaussians), not {ids.shape}")
    wrong = np.flatnonzero((tree.lineage(ids[Level.SMALL]) != ids).any(axis=0))
    if wrong.size:
        column = ids[:, wrong[0]].tolist()
        raise ValueError(
            f"Gaussian {wrong[0]} has ids {column}, which are not a small node and its ancestors"
        )
