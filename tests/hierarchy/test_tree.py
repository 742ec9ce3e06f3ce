import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersplat.hierarchy.tree import Node, SceneTree
from hiersplat.levels import UNLABELLED, Level


def lamp() -> SceneTree:
    """A lamp of two parts, one with two smalls, and a table that is one thing at all levels."""
    nodes = (
        Node(0, Level.WHOLE, UNLABELLED, name="lamp"),
        Node(1, Level.WHOLE, UNLABELLED),
        Node(2, Level.PART, 0),
        Node(3, Level.PART, 0),
        Node(4, Level.PART, 1),
        Node(5, Level.SMALL, 2),
        Node(6, Level.SMALL, 3),
        Node(7, Level.SMALL, 3),
        Node(8, Level.SMALL, 4),
    )
    node_ids = [[5, 6, 7, 8, -1, 8], [2, 3, 3, 4, -1, 4], [0, 0, 0, 1, -1, 1]]
    return SceneTree(nodes, np.array(node_ids, np.int32))


@st.composite
def trees(draw) -> SceneTree:
    """Any tree: every whole has parts, every part has smalls, Gaussians lie anywhere or nowhere."""
    nodes: list[Node] = []
    smalls: list[tuple[int, int, int]] = []
    ids = iter(np.random.default_rng(draw(st.integers(0, 99))).permutation(200).tolist())
    for _ in range(draw(st.integers(0, 4))):
        whole = next(ids)
        nodes.append(Node(whole, Level.WHOLE, UNLABELLED, agreement=draw(st.floats(0, 1))))
        for _ in range(draw(st.integers(1, 3))):
            part = next(ids)
            nodes.append(
                Node(
                    part,
                    Level.PART,
                    whole,
                    name=draw(st.sampled_from([None, "lid", "größe\n", chr(34)])),
                )
            )
            for _ in range(draw(st.integers(1, 3))):
                small = next(ids)
                nodes.append(Node(small, Level.SMALL, part, bbox_min=(0.1, -3.0, 1e-9)))
                smalls.append((small, part, whole))
    columns = draw(st.lists(st.sampled_from([*smalls, (UNLABELLED,) * 3]), max_size=30))
    return SceneTree(tuple(nodes), np.array(columns, np.int32).reshape(-1, 3).T)


@given(trees())
def test_any_tree_comes_back_from_its_arrays(tree):
    back = SceneTree.from_arrays(tree.to_arrays())
    assert back.nodes == tree.nodes
    assert np.array_equal(back.node_ids, tree.node_ids)


@given(trees())
def test_children_and_parents_say_the_same(tree):
    for node in tree.nodes:
        for child in tree.children(node.id):
            assert tree.parent(child) == node.id
        if node.parent != UNLABELLED:
            assert node.id in tree.children(node.parent)
        assert len(tree.ancestors(node.id)) == Level.WHOLE - node.level


@given(trees())
def test_gaussians_of_a_parent_are_those_of_its_children(tree):
    for node in tree.nodes:
        if node.level == Level.SMALL:
            continue
        below = [tree.gaussians_of(child) for child in tree.children(node.id)]
        assert np.array_equal(np.any(below, axis=0), tree.gaussians_of(node.id))


@given(trees())
def test_labels_count_the_ids_of_a_level_from_zero(tree):
    for level in Level:
        ids, labels = tree.level_ids(level), tree.labels(level)
        assert np.all(np.diff(ids) > 0)
        labelled = labels != UNLABELLED
        assert np.array_equal(ids[labels[labelled]], tree.node_ids[level][labelled])
        assert np.array_equal(labelled, tree.node_ids[level] != UNLABELLED)


def test_descendants_are_children_and_theirs():
    assert lamp().descendants(0) == (2, 3, 5, 6, 7)
    assert lamp().descendants(8) == ()


def test_a_whole_has_no_parent_and_a_small_no_children():
    assert lamp().parent(0) is None
    assert lamp().children(5) == ()


def test_a_node_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match=r"no node 99 \(ids: 0 to 8\)"):
        lamp().children(99)


def test_names_are_given_by_id_and_the_others_stay():
    named = lamp().with_names({1: "table"})
    assert [named.node(0).name, named.node(1).name, named.node(2).name] == ["lamp", "table", None]
    with pytest.raises(ValueError, match="no node 50"):
        lamp().with_names({50: "nothing"})


def test_moved_gaussians_take_parents_counts_and_boxes_with_them():
    means = np.arange(18, dtype=np.float32).reshape(6, 3)
    moved = lamp().with_node_ids(np.array([5, 5, 7, 8, 8, -1]), means)
    assert moved.node_ids[:, 4].tolist() == [8, 4, 1]
    assert moved.node_ids[:, 5].tolist() == [-1, -1, -1]
    assert moved.node(6).num_gaussians == 0
    assert moved.node(1).num_gaussians == 2
    assert moved.node(1).bbox_min == (9.0, 10.0, 11.0)
    assert moved.node(1).bbox_max == (12.0, 13.0, 14.0)


def test_lineage_follows_parents_and_refuses_other_levels():
    assert lamp().lineage(np.array([7, -1])).tolist() == [[7, -1], [3, -1], [0, -1]]
    with pytest.raises(ValueError, match="3 is not the id of a small node"):
        lamp().lineage(np.array([3]))


def test_json_is_readable_and_lists_children():
    table = json.loads(lamp().to_json())
    assert table["num_gaussians"] == 6
    assert table["nodes"][3]["level"] == "part"
    assert table["nodes"][3]["children"] == [6, 7]


def test_saved_tree_loads_from_its_two_files(tmp_path):
    lamp().save(tmp_path / "deep" / "tree.json")
    back = SceneTree.load(tmp_path / "deep" / "tree.json")
    assert back.nodes == lamp().nodes
    assert np.array_equal(back.node_ids, lamp().node_ids)


def test_tree_loads_without_torch_or_nerfstudio(tmp_path):
    lamp().save(tmp_path / "tree.json")
    program = (
        "import sys; from pathlib import Path; from hiersplat.hierarchy.tree import SceneTree;"
        f"SceneTree.load(Path({str(tmp_path / 'tree.json')!r}));"
        "print([m for m in ('torch', 'nerfstudio', 'scipy') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr


def test_missing_ids_beside_the_json_are_named(tmp_path):
    lamp().save(tmp_path / "tree.json")
    (tmp_path / "tree.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"tree\.npz"):
        SceneTree.load(tmp_path / "tree.json")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("no json", "not a scene tree"),
        ("[]", "'format' is not"),
        ('{"format": "hiersplat-scene-tree", "version": 9}', "version 9"),
        ('{"format": "hiersplat-scene-tree", "version": 1, "num_gaussians": 7}', "of 7 Gaussians"),
        (
            '{"format": "hiersplat-scene-tree", "version": 1, "num_gaussians": 6, "nodes": [{}]}',
            "not a node",
        ),
    ],
)
def test_text_that_is_no_tree_is_refused_in_one_line(tmp_path, text, complaint):
    with pytest.raises(ValueError, match=complaint) as caught:
        SceneTree.from_json(text, lamp().node_ids)
    assert "\n" not in str(caught.value)
    lamp().save(tmp_path / "tree.json")
    (tmp_path / "tree.json").write_text(text)
    with pytest.raises(ValueError, match=r"tree\.json"):
        SceneTree.load(tmp_path / "tree.json")


def test_file_that_is_no_npz_is_refused(tmp_path):
    lamp().save(tmp_path / "tree.json")
    (tmp_path / "tree.npz").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match=r"tree\.json"):
        SceneTree.load(tmp_path / "tree.json")


def test_arrays_without_a_table_are_refused():
    with pytest.raises(ValueError, match="no array 'node_table'"):
        SceneTree.from_arrays({"node_ids": lamp().node_ids})
    broken = {**lamp().to_arrays(), "node_table": np.array([255, 254], np.uint8)}
    with pytest.raises(ValueError, match="not a scene tree"):
        SceneTree.from_arrays(broken)


@pytest.mark.parametrize(
    ("nodes", "complaint"),
    [
        ([Node(0, Level.WHOLE, -1), Node(0, Level.WHOLE, -1)], "node id 0 occurs twice"),
        ([Node(-4, Level.WHOLE, -1)], "-4 is negative"),
        ([Node(0, Level.WHOLE, -1), Node(1, Level.WHOLE, 0)], "1 is a whole but has parent 0"),
        ([Node(0, Level.WHOLE, -1), Node(1, Level.SMALL, 0)], "its parent 0 is no part"),
        ([Node(1, Level.PART, 7)], "its parent 7 is no whole"),
    ],
)
def test_nodes_that_are_no_tree_are_refused(nodes, complaint):
    with pytest.raises(ValueError, match=complaint):
        SceneTree(tuple(nodes), np.zeros((3, 0), np.int32))


@pytest.mark.parametrize("column", [[5, 3, 0], [5, 2, 1], [-1, 2, 0], [5, -1, -1]])
def test_ids_that_are_not_nested_are_refused(column):
    with pytest.raises(ValueError, match="not a small node and its ancestors"):
        SceneTree(lamp().nodes, np.array(column).reshape(3, 1))


def test_ids_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"shape \(3, number of Gaussians\)"):
        SceneTree(lamp().nodes, np.zeros((2, 4), np.int32))
