"""The hull of silhouettes: of balls, whose silhouettes are known without a renderer."""

import numpy as np
import pytest
import torch

from hiersplat.gaussians.cameras import Camera, viewmat_from_camera_to_world
from hiersplat.gaussians.hull import View, silhouette_hull

SIZE, FOCAL, DISTANCE, RADIUS = 96, 110.0, 4.0, 0.6
CENTRE = np.array([0.3, -0.2, 0.1])
BOX = np.full(3, -1.5), np.full(3, 1.5)


def camera_at(direction: np.ndarray) -> Camera:
    """A camera that looks at the origin."""
    back = direction / np.linalg.norm(direction)
    right = np.cross([0.1, 0.2, 1.0], back)
    right /= np.linalg.norm(right)
    pose = np.stack([right, np.cross(back, right), back, DISTANCE * back], axis=1)
    K = torch.tensor([[FOCAL, 0, SIZE / 2], [0, FOCAL, SIZE / 2], [0, 0, 1]])
    viewmat = viewmat_from_camera_to_world(torch.tensor(pose, dtype=torch.float32))
    return Camera("view", viewmat, K, SIZE, SIZE)


def view_of_ball(direction: np.ndarray) -> View:
    """The ball, red where it faces +X and blue elsewhere, on nothing."""
    camera = camera_at(direction)
    viewmat = camera.viewmat.double().numpy()
    v, u = np.mgrid[:SIZE, :SIZE] + 0.5
    rays = np.stack([(u - SIZE / 2) / FOCAL, (v - SIZE / 2) / FOCAL, np.ones_like(u)], -1)
    rays = rays @ viewmat[:3, :3]
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    start = -viewmat[:3, :3].T @ viewmat[:3, 3] - CENTRE
    along = rays @ start
    inside = along**2 - start @ start + RADIUS**2
    image = np.zeros((SIZE, SIZE, 4), np.uint8)
    hit = inside >= 0
    points = start + rays * (-along - np.sqrt(np.maximum(inside, 0)))[..., None]
    image[hit] = np.where(points[hit][:, :1] > 0, [255, 0, 0, 255], [0, 0, 255, 255])
    return camera, image


@pytest.fixture(scope="module")
def views() -> list[View]:
    rng = np.random.default_rng(3)
    return [view_of_ball(direction) for direction in rng.normal(size=(24, 3))]


def test_points_lie_close_to_the_surface_and_cover_it(views):
    found = silhouette_hull(views, *BOX, count=4000)
    assert found is not None
    offsets = found[0] - CENTRE
    distances = np.linalg.norm(offsets, axis=1)
    assert len(distances) == 4000
    # A hull is never smaller than its object; a pixel is 0.036 wide there.
    assert distances.min() > RADIUS - 0.05
    assert np.median(distances) < RADIUS + 0.08
    for axis in range(3):
        assert np.ptp(offsets[:, axis]) > 1.8 * RADIUS


def test_points_take_the_colour_of_their_own_side(views):
    found = silhouette_hull(views, *BOX, count=4000)
    assert found is not None
    side = found[0][:, 0] - CENTRE[0]
    red, blue = found[1][side > 0.2], found[1][side < -0.2]
    assert (red[:, 0] > red[:, 2]).mean() > 0.95
    assert (blue[:, 2] > blue[:, 0]).mean() > 0.95


def test_same_seed_gives_the_same_points(views):
    first, second = (silhouette_hull(views, *BOX, count=100) for _ in range(2))
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first[0], second[0])


def test_views_that_are_not_cut_out_have_no_hull(views):
    opaque = []
    for camera, image in views:
        filled = image.copy()
        filled[..., 3] = 255
        opaque.append((camera, filled))
    assert silhouette_hull(opaque, *BOX, count=100) is None
    assert silhouette_hull([], *BOX, count=100) is None


def test_silhouettes_that_exclude_each_other_leave_nothing(views):
    # The ball left out of half of the views.
    emptied = [
        (camera, np.zeros_like(image)) if place % 2 else (camera, image)
        for place, (camera, image) in enumerate(views)
    ]
    assert silhouette_hull(emptied, *BOX, count=100) is None
