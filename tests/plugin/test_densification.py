import pytest
import torch

from hiersplat.plugin.densification import BoundedStrategy

COUNT = 50


def grown(max_gaussians: int, large: bool) -> tuple[int, torch.Tensor]:
    """Number of Gaussians after one growth step, and the x of those that were there before.

    Need grows with the index, and every Gaussian passes the threshold.
    """
    torch.manual_seed(0)
    means = torch.arange(COUNT).float()[:, None].repeat(1, 3)
    params = torch.nn.ParameterDict(
        {
            "means": means,
            "scales": torch.full((COUNT, 3), 0.0 if large else -9.0),
            "quats": torch.eye(4)[:1].repeat(COUNT, 1),
            "opacities": torch.zeros(COUNT, 1),
            "hierarchy_features": torch.zeros(COUNT, 16),
        }
    )
    optimizers = {name: torch.optim.Adam([value], lr=0.0) for name, value in params.items()}
    strategy = BoundedStrategy(max_gaussians=max_gaussians, refine_scale2d_stop_iter=10)
    state = strategy.initialize_state(scene_scale=1.0)
    state["grad2d"] = torch.arange(1, COUNT + 1).float()
    state["count"] = torch.ones(COUNT)
    state["radii"] = torch.ones(COUNT)
    strategy._grow_gs(params, optimizers, state, step=1)
    assert strategy.refine_scale2d_stop_iter == 10
    assert len(params["hierarchy_features"]) == len(params["means"])
    return len(params["means"]), params["means"][:, 0].round()


@pytest.mark.parametrize("large", [False, True])
def test_growth_stops_at_the_bound_and_the_neediest_go_first(large: bool):
    count, positions = grown(60, large)
    assert count == 60
    if not large:
        assert sorted(positions[COUNT:].tolist()) == list(range(40, 50))


def test_a_full_scene_does_not_grow():
    assert grown(COUNT, large=False)[0] == COUNT
    assert grown(COUNT - 9, large=True)[0] == COUNT


def test_without_a_bound_all_needy_grow():
    # Every one is duplicated, and split for its size on the screen.
    assert grown(0, large=False)[0] == 3 * COUNT
