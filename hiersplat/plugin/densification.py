"""gsplat's densification with a bound on the number of Gaussians."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from gsplat.strategy import DefaultStrategy

if TYPE_CHECKING:
    from hiersplat.plugin.model import HiersplatModelConfig


@dataclass
class BoundedStrategy(DefaultStrategy):
    """The default strategy; where growth would pass the bound, the neediest Gaussians go first.

    On a CPU the time of a step follows from the number of Gaussians, so a run that is to end
    in minutes needs a bound rather than a threshold that suits one scene.
    """

    max_gaussians: int = 0
    """Largest number of Gaussians; 0 for no bound."""

    @torch.no_grad()
    def _grow_gs(self, params: Any, optimizers: Any, state: dict[str, Any], step: int) -> Any:
        if self.max_gaussians <= 0:
            return super()._grow_gs(params, optimizers, state, step)
        room = self.max_gaussians - len(params["means"])
        if room <= 0:
            return 0, 0
        given = self.grow_grad2d, self.refine_scale2d_stop_iter
        needs = state["grad2d"] / state["count"].clamp_min(1)
        needy = int((needs > self.grow_grad2d).sum())
        large = int((state["radii"] > self.grow_scale2d).sum()) if given[1] > step else 0
        if needy + large > room:
            # Splitting what is large on the screen knows no order, so it waits for room.
            self.refine_scale2d_stop_iter = 0
        if needy > room:
            self.grow_grad2d = float(torch.topk(needs, room + 1).values[-1])
        try:
            return super()._grow_gs(params, optimizers, state, step)
        finally:
            self.grow_grad2d, self.refine_scale2d_stop_iter = given


def make_strategy(config: "HiersplatModelConfig", num_train_data: int) -> BoundedStrategy:
    """Return splatfacto's densification strategy for these settings."""
    return BoundedStrategy(
        prune_opa=config.cull_alpha_thresh,
        grow_grad2d=config.densify_grad_thresh,
        grow_scale3d=config.densify_size_thresh,
        grow_scale2d=config.split_screen_size,
        prune_scale3d=config.cull_scale_thresh,
        prune_scale2d=config.cull_screen_size,
        refine_scale2d_stop_iter=config.stop_screen_size_at,
        refine_start_iter=config.warmup_length,
        refine_stop_iter=config.stop_split_at,
        reset_every=config.reset_alpha_every * config.refine_every,
        refine_every=config.refine_every,
        pause_refine_after_reset=num_train_data + config.refine_every,
        absgrad=config.use_absgrad,
        revised_opacity=False,
        verbose=False,
        max_gaussians=config.max_gaussians,
    )
