import torch

from hiersplat.gaussians.picking import pick_gaussian
from hiersplat.gaussians.splats import Splats


def row_of_splats(opacities: list[float], scale: float = 0.1) -> Splats:
    """Gaussians at z = 1, 2, 3, ... on the z axis."""
    count = len(opacities)
    means = torch.zeros(count, 3)
    means[:, 2] = torch.arange(1, count + 1)
    return Splats(
        means=means,
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        log_scales=torch.full((count, 3), scale).log(),
        logit_opacities=torch.logit(torch.tensor(opacities)),
        sh=torch.zeros(count, 1, 3),
    )


ORIGIN, AHEAD = torch.zeros(3), torch.tensor([0.0, 0.0, 2.0])


def test_an_opaque_gaussian_hides_those_behind_it():
    assert pick_gaussian(row_of_splats([0.9, 0.99, 0.99]), ORIGIN, AHEAD) == 0


def test_a_faint_gaussian_is_looked_through():
    assert pick_gaussian(row_of_splats([0.1, 0.99, 0.99]), ORIGIN, AHEAD) == 1


def test_faint_gaussians_add_up_to_the_one_that_makes_the_ray_half_opaque():
    assert pick_gaussian(row_of_splats([0.3, 0.3, 0.3]), ORIGIN, AHEAD) == 1


def test_a_ray_that_meets_nothing_picks_nothing():
    splats = row_of_splats([0.99])
    assert pick_gaussian(splats, ORIGIN, -AHEAD) is None
    assert pick_gaussian(splats, ORIGIN, torch.tensor([1.0, 0, 0])) is None


def test_a_flat_gaussian_is_met_where_it_is_turned_to():
    # A disc across the z axis, turned by 90 degrees about x to lie along it.
    disc = row_of_splats([0.99])
    half = 0.5**0.5
    wide = torch.tensor([[0.5, 0.5, 0.001]]).log()
    facing = Splats(disc.means, disc.quats, wide, disc.logit_opacities, disc.sh)
    edge_on = Splats(
        disc.means, torch.tensor([[half, half, 0, 0]]), wide, disc.logit_opacities, disc.sh
    )
    above = torch.tensor([0.0, 0.3, 0.0])
    assert pick_gaussian(facing, above, AHEAD) == 0
    assert pick_gaussian(edge_on, above, AHEAD) is None
