import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiersplat.levels import Level
from hiersplat.semantics.descriptors import NodeDescriptors, aggregate_descriptors, summarise
from hiersplat.semantics.observations import DescriptorConfig, ViewObservations, observe_view

IDS = np.array([0, 3, 5], np.int32)
LEVELS = np.array([Level.WHOLE, Level.PART, Level.SMALL], np.int8)
PARENTS = np.array([-1, 0, 3], np.int32)


def unit(*values):
    vector = np.array(values, np.float64)
    return vector / np.linalg.norm(vector)


def view(*observations):
    ids, vectors, weights = zip(*observations, strict=True)
    return ViewObservations(
        np.array(ids, np.int32), np.array(vectors, np.float32), np.array(weights)
    )


def test_an_outlier_view_does_not_move_the_descriptor():
    good, bad = unit(1, 0.02, 0), unit(0, 0, 1)
    found, shares = summarise(np.array([good] * 9 + [bad]), np.ones(10))
    assert len(found) == 1
    assert found[0] @ good > 0.999
    np.testing.assert_allclose(shares, [1])


def test_two_sides_of_a_node_are_kept_apart_with_their_shares():
    front, side = unit(1, 0, 0), unit(0, 1, 0)
    found, shares = summarise(np.array([front] * 6 + [side] * 3), np.ones(9))
    np.testing.assert_allclose(found, [front, side], atol=1e-9)
    np.testing.assert_allclose(shares, [2 / 3, 1 / 3])


def test_weight_decides_not_the_number_of_views():
    seen_well, seen_badly = unit(1, 0), unit(0, 1)
    found, _ = summarise(np.array([seen_well] + [seen_badly] * 5), np.array([100.0] + [1.0] * 5))
    np.testing.assert_allclose(found, [seen_well])


def test_no_usable_observation_gives_no_descriptor():
    for vectors, weights in (
        (np.zeros((0, 4)), np.zeros(0)),
        (np.zeros((2, 4)), np.ones(2)),
        (np.ones((2, 4)), np.zeros(2)),
        (np.full((1, 4), np.nan), np.ones(1)),
    ):
        found, shares = summarise(vectors, weights)
        assert found.shape == (0, 4)
        assert len(shares) == 0


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 9999),
    count=st.integers(1, 12),
    per_node=st.integers(1, 4),
)
def test_descriptors_are_unit_vectors_and_their_shares_sum_to_one(seed, count, per_node):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 5))
    config = DescriptorConfig(per_node=per_node)
    found, shares = summarise(vectors, rng.uniform(0.01, 5, count), config)
    assert 1 <= len(found) <= per_node
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    assert shares.sum() == pytest.approx(1)
    assert (np.diff(shares) <= 1e-12).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 9999))
def test_the_order_of_the_views_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    views = [view(*[(i, rng.normal(size=4), rng.uniform(1, 9)) for i in IDS]) for _ in range(5)]
    forward = aggregate_descriptors(IDS, LEVELS, PARENTS, views, "m")
    backward = aggregate_descriptors(IDS, LEVELS, PARENTS, views[::-1], "m")
    np.testing.assert_allclose(
        forward.vectors.astype(float), backward.vectors.astype(float), atol=2e-3
    )


def test_nodes_are_ordered_by_id_and_a_node_nobody_saw_has_no_weight():
    order = [2, 0, 1]
    descriptors = aggregate_descriptors(
        IDS[order], LEVELS[order], PARENTS[order], [view((3, unit(1, 0), 1.0))], "m"
    )
    assert descriptors.node_ids.tolist() == [0, 3, 5]
    assert descriptors.levels.tolist() == [Level.WHOLE, Level.PART, Level.SMALL]
    assert descriptors.weights.sum(axis=1).tolist() == [0, 1, 0]


def test_a_view_of_another_scene_is_refused():
    with pytest.raises(ValueError, match="node 4"):
        aggregate_descriptors(IDS, LEVELS, PARENTS, [view((4, unit(1, 0), 1.0))], "m")


def test_best_mask_of_any_level_is_the_observation():
    nodes = np.full((3, 4, 4), -1, np.int32)
    nodes[Level.WHOLE, :, :2] = 7
    nodes[Level.PART, :2, :2] = 8
    labels = np.full((3, 4, 4), -1, np.int32)
    labels[Level.PART, :, :2] = 0  # What the scene calls a whole, this view calls a part.
    labels[Level.WHOLE] = 0
    tables = (np.zeros((0, 2)), np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))
    seen = observe_view(labels, nodes, tables)
    assert seen.node_ids.tolist() == [7, 8]
    np.testing.assert_allclose(seen.embeddings, [[1, 0], [1, 0]])
    np.testing.assert_allclose(seen.weights, [8 * 1.0, 4 * 0.5])


def test_at_equal_overlap_the_mask_of_the_own_level_is_taken():
    same = np.zeros((3, 2, 2), np.int32)
    tables = (np.array([[1.0, 0, 0]]), np.array([[0, 1.0, 0]]), np.array([[0, 0, 1.0]]))
    nodes = np.stack([np.full((2, 2), i, np.int32) for i in (5, 3, 0)])
    seen = observe_view(same, nodes, tables)
    np.testing.assert_allclose(seen.embeddings[::-1], np.eye(3))


def test_a_mask_that_barely_overlaps_says_nothing():
    nodes = np.zeros((3, 4, 4), np.int32)
    labels = np.full((3, 4, 4), -1, np.int32)
    labels[:, 0, 0] = 0
    seen = observe_view(labels, nodes, (np.ones((1, 2)),) * 3)
    assert len(seen.node_ids) == 0
    assert seen.embeddings.shape == (0, 2)


def test_rendered_nodes_of_another_size_are_refused():
    with pytest.raises(ValueError, match="labels are"):
        observe_view(np.zeros((3, 2, 2), np.int32), np.zeros((3, 4, 4), np.int32), ())


def test_descriptors_survive_the_disk(tmp_path):
    rng = np.random.default_rng(0)
    views = [view(*[(i, rng.normal(size=4), 1.0) for i in IDS]) for _ in range(4)]
    descriptors = aggregate_descriptors(IDS, LEVELS, PARENTS, views, "micro-clipseg")
    descriptors.save(tmp_path / "descriptors.npz")
    again = NodeDescriptors.load(tmp_path / "descriptors.npz")
    for name in ("node_ids", "levels", "parents", "vectors", "weights"):
        np.testing.assert_array_equal(getattr(again, name), getattr(descriptors, name))
    assert again.checkpoint == "micro-clipseg"


def test_a_run_without_semantics_is_told_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no text descriptors"):
        NodeDescriptors.load(tmp_path / "descriptors.npz")


def test_a_spoiled_file_is_named(tmp_path):
    path = tmp_path / "descriptors.npz"
    path.write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(ValueError, match="descriptors.npz"):
        NodeDescriptors.load(path)
    np.savez(path, node_ids=IDS)
    with pytest.raises(ValueError, match="not a file of node descriptors"):
        NodeDescriptors.load(path)


@pytest.mark.parametrize("settings", [{"per_node": 0}, {"min_share": 1}, {"min_agreement": -1}])
def test_descriptor_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        DescriptorConfig(**settings)
