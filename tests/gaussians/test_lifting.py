"""Lifting on both engines against the slow twin."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from hiersplat.gaussians.lifting import (
    add_map_by_gradient,
    lift_labels,
    lift_labels_by_gradient,
    lift_maps,
    render_ids,
    render_ids_by_channels,
)
from hiersplat.gaussians.reference import lift_labels_, render_ids_, weights_
from hiersplat.gaussians.splats import Splats
from hiersplat.levels import UNLABELLED


def _exact(splats, camera):
    """Return both in float64, so that the twin is the truth."""
    wide = Splats(**{name: tensor.double() for name, tensor in vars(splats).items()})
    return wide, replace(camera, viewmat=camera.viewmat.double(), K=camera.K.double())


def _labels(camera, count, seed=0, block=1):
    random = np.random.default_rng(seed)
    coarse = random.integers(-1, count, (-(-camera.height // block), -(-camera.width // block)))
    fine = coarse.repeat(block, 0).repeat(block, 1)[: camera.height, : camera.width]
    return np.ascontiguousarray(fine, dtype=np.int32)


@pytest.mark.parametrize("lift", [lift_labels, lift_labels_by_gradient])
@pytest.mark.parametrize("block", [1, 3, 16])
def test_labels_receive_the_twins_weights(make_splats, make_camera, lift, block):
    splats, camera = make_splats(200, size=0.1), make_camera()
    labels = _labels(camera, 6, block=block)
    lifted = lift(splats, camera, labels, 9)
    assert isinstance(lifted, sparse.csr_matrix)
    assert lifted.shape == (200, 9)
    assert lifted.dtype == np.float32
    truth = lift_labels_(*_exact(splats, camera), labels, 9).numpy()
    np.testing.assert_allclose(lifted.toarray(), truth, atol=1e-3, rtol=1e-4)


def test_more_labels_than_channels_at_once_are_lifted(make_splats, make_camera):
    splats, camera = make_splats(100, size=0.1), make_camera()
    labels = _labels(camera, 70)
    np.testing.assert_allclose(
        lift_labels_by_gradient(splats, camera, labels, 70).toarray(),
        lift_labels(splats, camera, labels, 70).toarray(),
        atol=1e-3,
    )


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.sampled_from([1e-3, 0.05, 1.0]))
def test_all_labels_together_receive_the_coverage(make_splats, make_camera, seed, size):
    splats, camera = make_splats(60, seed=seed, size=size), make_camera()
    labels = np.abs(_labels(camera, 4, seed=seed))
    _, left = weights_(*_exact(splats, camera))
    total = lift_labels(splats, camera, labels, 4).sum()
    assert abs(total - float((1 - left).sum())) <= 1e-3 * (1 + total)


def test_unlabelled_pixels_leave_nothing(make_splats, make_camera):
    camera = make_camera()
    labels = np.full((camera.height, camera.width), UNLABELLED, np.int32)
    assert lift_labels(make_splats(50), camera, labels, 3).nnz == 0


def test_lifting_is_the_same_every_time(make_splats, make_camera):
    splats, camera = make_splats(500, size=0.1), make_camera(200, 150)
    labels = _labels(camera, 12, block=5)
    first, second = (lift_labels(splats, camera, labels, 12) for _ in range(2))
    assert (first != second).nnz == 0


def test_labels_without_gaussians_are_an_empty_matrix(make_splats, make_camera):
    camera = make_camera()
    lifted = lift_labels(make_splats(0), camera, _labels(camera, 3), 3)
    assert lifted.shape == (0, 3)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((3, 4), np.int32), "rows and columns"),
        (np.full((37, 52), 5, np.int32), "5"),
        (np.full((37, 52), -2, np.int32), "-2"),
    ],
)
def test_labels_that_do_not_fit_are_refused(make_splats, make_camera, labels, message):
    with pytest.raises(ValueError, match=message):
        lift_labels(make_splats(5), make_camera(), labels, 5)


@pytest.mark.parametrize("channels", [1, 5, 70])
def test_maps_are_averaged_over_views(make_splats, make_camera, channels):
    splats = make_splats(120, size=0.1)
    cameras = [make_camera(), make_camera(40, 30, distance=6.0)]
    random = torch.Generator().manual_seed(3)
    maps = [torch.randn(c.height, c.width, channels, generator=random) for c in cameras]
    means, weights = lift_maps(splats, cameras, iter(maps))
    sums, truth = torch.zeros(120, channels).double(), torch.zeros(120).double()
    for camera, values in zip(cameras, maps, strict=True):
        dense, _ = weights_(*_exact(splats, camera))
        sums += dense.T @ values.double().flatten(0, 1)
        truth += dense.sum(0)
    np.testing.assert_allclose(weights, truth, atol=1e-3)
    np.testing.assert_allclose(means * weights[:, None], sums, atol=2e-3)
    assert (means[weights == 0] == 0).all()


def test_gradients_hand_out_the_same_maps(make_splats, make_camera):
    splats, camera = make_splats(80, size=0.1), make_camera()
    values = torch.randn(camera.height, camera.width, 40, generator=torch.Generator())
    sums, weights = torch.zeros(80, 40), torch.zeros(80)
    add_map_by_gradient(splats, camera, values, sums, weights)
    means, direct = lift_maps(splats, [camera], [values])
    np.testing.assert_allclose(weights, direct, atol=1e-3)
    np.testing.assert_allclose(sums, means * direct[:, None], atol=1e-3)


def test_constant_map_is_its_own_mean(make_splats, make_camera):
    camera = make_camera()
    means, weights = lift_maps(
        make_splats(60), [camera], [torch.full((camera.height, camera.width, 2), 3.5)]
    )
    torch.testing.assert_close(means[weights > 0], torch.full_like(means[weights > 0], 3.5))


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ([torch.zeros(37, 52, 2), torch.zeros(37, 52, 3)], "channels"),
        ([torch.zeros(37, 50, 2), torch.zeros(37, 52, 2)], "rows and columns"),
        ([torch.zeros(37, 52, 2)], "zip"),
    ],
)
def test_maps_that_do_not_fit_are_refused(make_splats, make_camera, maps, message):
    with pytest.raises(ValueError, match=message):
        lift_maps(make_splats(5), [make_camera(), make_camera()], maps)


def test_no_views_cannot_be_lifted(make_splats):
    with pytest.raises(ValueError, match="no views"):
        lift_maps(make_splats(5), [], [])


@pytest.mark.parametrize("render", [render_ids, render_ids_by_channels])
def test_ids_win_where_the_twin_says(make_splats, make_camera, render):
    splats, camera = make_splats(300, size=0.1), make_camera()
    random = np.random.default_rng(0)
    ids = random.integers(-1, [[40], [9], [3]], (3, 300)).astype(np.int32)
    winners, leads = render_ids_(*_exact(splats, camera), ids)
    rendered = render(splats, camera, ids)
    assert rendered.shape == (3, camera.height, camera.width)
    assert rendered.dtype == np.int32
    clear = leads > 1e-4
    assert clear.mean() > 0.5
    np.testing.assert_array_equal(rendered[clear], winners[clear])


def test_ids_need_half_the_light(make_splats, make_camera):
    camera = make_camera()
    faint = replace(make_splats(5), logit_opacities=torch.full((5,), -3.0))
    assert (render_ids(faint, camera, np.zeros((1, 5), np.int32)) == UNLABELLED).all()


def test_gaussians_without_id_vote_for_unlabelled(make_camera):
    splats = Splats(
        torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0]]), torch.zeros(1, 3), torch.tensor([9.0]),
        torch.zeros(1, 1, 3),
    )  # fmt: skip
    camera = make_camera()
    assert (render_ids(splats, camera, np.full((1, 1), UNLABELLED, np.int32)) == UNLABELLED).all()
    assert render_ids(splats, camera, np.full((1, 1), 7, np.int32))[0, 18, 26] == 7


def test_no_gaussians_render_no_ids(make_splats, make_camera):
    rendered = render_ids(make_splats(0), make_camera(), np.zeros((3, 0), np.int32))
    assert (rendered == UNLABELLED).all()


@pytest.mark.parametrize(
    ("ids", "message"),
    [(np.zeros((3, 4), np.int32), "shape"), (np.full((1, 5), -2, np.int32), "-2")],
)
def test_ids_that_do_not_fit_are_refused(make_splats, make_camera, ids, message):
    with pytest.raises(ValueError, match=message):
        render_ids(make_splats(5), make_camera(), ids)
