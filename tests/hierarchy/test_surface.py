import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hiersplat.gaussians.cameras import Camera
from hiersplat.hierarchy.surface import (
    SurfacePoints,
    pair_consistency,
    sample_surface,
    view_consistency,
)
from hiersplat.levels import UNLABELLED

WIDTH, HEIGHT = 40, 30


def camera_at(x: float, name: str = "view") -> Camera:
    """A camera at (x, 0, 0) that looks along +Z."""
    viewmat = torch.eye(4)
    viewmat[0, 3] = -x
    K = torch.tensor([[40.0, 0, WIDTH / 2], [0, 40.0, HEIGHT / 2], [0, 0, 1]])
    return Camera(name, viewmat, K, WIDTH, HEIGHT)


def wall(distance: float) -> np.ndarray:
    return np.full((HEIGHT, WIDTH), distance, np.float32)


def test_points_of_a_wall_lie_on_it_and_are_seen_where_they_project():
    cameras = [camera_at(0.0), camera_at(0.5)]
    found = sample_surface(cameras, [wall(4.0), wall(4.0)], points_per_view=200)
    assert found.positions.shape == (400, 3)
    np.testing.assert_allclose(found.positions[:, 2], 4.0)
    # Every point is seen by the view it was drawn from.
    assert (found.pixels[:200, 0] >= 0).all()
    assert (found.pixels[200:, 1] >= 0).all()
    # The second camera stands half a unit to the right: 5 columns at this distance.
    both = found.pixels[:200][(found.pixels[:200] >= 0).all(axis=1)]
    assert len(both) > 100
    assert (both[:, 0] - both[:, 1] == 5).all()


def test_hidden_points_are_not_seen():
    depth = wall(4.0)
    depth[:, : WIDTH // 2] = 1.0  # something near hides the left half in the second view
    found = sample_surface([camera_at(0.0), camera_at(0.0)], [wall(4.0), depth], 100)
    from_first = found.pixels[:100]
    left = from_first[:, 0] % WIDTH < WIDTH // 2
    assert (from_first[left, 1] == -1).all()
    assert (from_first[~left, 1] == from_first[~left, 0]).all()


def test_empty_pixels_give_no_points_and_hide_none():
    empty = np.full((HEIGHT, WIDTH), np.inf, np.float32)
    found = sample_surface([camera_at(0.0), camera_at(0.0)], [wall(2.0), empty], 50)
    assert len(found.positions) == 50
    assert (found.pixels[:, 1] == -1).all()
    with pytest.raises(ValueError, match="every depth map is empty"):
        sample_surface([camera_at(0.0)], [empty])


def test_labels_are_looked_up_at_the_pixels():
    points = SurfacePoints(np.zeros((2, 3)), np.array([[0, 3], [5, -1]]))
    maps = [np.arange(6).reshape(2, 3), np.array([[7, 7, 7], [9, 9, 9]])]
    assert points.labels(maps).tolist() == [[0, 9], [5, UNLABELLED]]
    with pytest.raises(ValueError, match="1 label maps for 2 views"):
        points.labels(maps[:1])


def test_view_consistency_of_known_case():
    ids = np.array(
        [
            [1, 1, 2, UNLABELLED],  # 2 of 3 agree
            [5, 5, 5, 5],  # 4 of 4
            [1, UNLABELLED, UNLABELLED, 2],  # seen twice only: left out
        ]
    )
    found = view_consistency(ids)
    assert found.agreement == pytest.approx(6 / 7)
    assert (found.num_ids, found.num_points) == (3, 2)
    assert found.chance == pytest.approx((2 / 7) ** 2 + (1 / 7) ** 2 + (4 / 7) ** 2)


def test_one_id_for_everything_agrees_by_chance_alone():
    found = view_consistency(np.full((10, 4), 3))
    assert (found.agreement, found.chance, found.num_ids) == (1.0, 1.0, 1)


def test_consistency_without_enough_views_is_not_a_number():
    assert np.isnan(view_consistency(np.array([[1, 1]])).agreement)
    assert np.isnan(pair_consistency(np.array([[1, UNLABELLED]])).f1)


def test_pair_consistency_needs_no_common_names():
    random = np.random.default_rng(0)
    ids = random.integers(0, 4, 200)
    renamed = np.stack([ids, ids + 10, (ids + 1) % 4], axis=1)
    assert pair_consistency(renamed).f1 == 1.0


def test_pair_consistency_of_independent_views_is_chance():
    ids = np.random.default_rng(1).integers(0, 3, (3000, 2))
    found = pair_consistency(ids, pairs_per_view_pair=20000)
    assert found.f1 == pytest.approx(1 / 3, abs=0.02)
    assert found.f1 == pytest.approx(found.chance, abs=0.02)
    assert found.num_pairs == 20000


def test_pair_consistency_of_one_mask_against_halves_is_known():
    # "Same" holds for all pairs in one view and for half of them in the other.
    halves = np.arange(1000) % 2
    found = pair_consistency(np.stack([halves * 0, halves], axis=1), 50000)
    assert found.f1 == pytest.approx(2 * 0.5 / 1.5, abs=0.01)


@settings(max_examples=40, deadline=None)
@given(arrays(np.int64, (8, 4), elements=st.integers(-1, 5)), st.permutations(range(6)))
def test_renaming_ids_changes_no_consistency(ids: np.ndarray, order: list[int]):
    names = np.array([*order, UNLABELLED]) * 3
    names[-1] = UNLABELLED
    before, after = view_consistency(ids), view_consistency(names[ids])
    assert before.agreement == pytest.approx(after.agreement, nan_ok=True)
    assert before.chance == pytest.approx(after.chance, nan_ok=True)
    assert pair_consistency(ids).f1 == pytest.approx(pair_consistency(names[ids]).f1, nan_ok=True)
    assert np.isnan(before.agreement) or before.chance <= 1.0
