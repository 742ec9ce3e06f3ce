"""The model: splatfacto whose Gaussians also belong to a small detail, a part and a whole.

Training has two phases. Colours and geometry are trained as splatfacto trains them; in the
last ``hierarchy_steps`` they stand still, the masks of all views are lifted to the Gaussians
and associated into one tree, and a nested feature a Gaussian is sharpened (``stage.py``).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.engine.callbacks import (
    TrainingCallback,
    TrainingCallbackAttributes,
    TrainingCallbackLocation,
)
from nerfstudio.models.splatfacto import SplatfactoModel, SplatfactoModelConfig
from nerfstudio.utils.colors import get_color
from torch import Tensor
from torch.nn import Parameter

from hiersplat.gaussians.cameras import Camera, viewmat_from_camera_to_world
from hiersplat.gaussians.lifting import render_ids
from hiersplat.gaussians.picking import pick_gaussian
from hiersplat.gaussians.splats import Splats
from hiersplat.hierarchy.association import AssociationConfig
from hiersplat.hierarchy.field import (
    HierarchyFieldConfig,
    assign,
    initial_features,
    render_nodes,
)
from hiersplat.hierarchy.losses import HierarchyLossConfig, hierarchy_losses
from hiersplat.hierarchy.metrics import HierarchyMetrics
from hiersplat.hierarchy.semantic_field import SemanticFieldConfig, distillation_loss
from hiersplat.hierarchy.tree import SceneTree
from hiersplat.levels import Level
from hiersplat.plugin.densification import make_strategy
from hiersplat.plugin.errors import one_line_errors
from hiersplat.plugin.initialization import initial_parameters
from hiersplat.plugin.palette import level_palette
from hiersplat.plugin.query_panel import QueryPanel
from hiersplat.plugin.rendering import blend_values, rasterize
from hiersplat.plugin.semantics import SceneSemantics, semantic_colors
from hiersplat.plugin.stage import HierarchyStage
from hiersplat.plugin.viewer import HierarchyPanel

VIEWER_BACKGROUND = (0.1490, 0.1647, 0.2157)
"""splatfacto's background where it is random in training: that of the viewer."""
LEVEL_BACKGROUND = 0.1
"""Grey behind the pictures of the levels."""


@dataclass
class HiersplatModelConfig(SplatfactoModelConfig):
    """splatfacto, and a hierarchy of small, part and whole on its Gaussians."""

    _target: type = field(default_factory=lambda: HiersplatModel)
    hierarchy_steps: int = 1000
    """Last training steps, given to the hierarchy: geometry stands still and the features are
    sharpened. At most a quarter of the run, and no more than ``losses.passes`` over the views
    where there are no semantic features. On two CPU cores about 0.1 s a step at 256 x 256."""
    max_gaussians: int = 0
    """Bound on the number of Gaussians; 0: none. On a CPU a step's time follows from it."""
    geometry: Path | None = None
    """A finished splatfacto or hiersplat run, or a 3DGS .ply in this data set's frame: its colours
    and geometry are taken as they are and only the hierarchy is built, in hierarchy_steps steps."""
    association: AssociationConfig = field(default_factory=AssociationConfig)
    """How masks of all views become segments of the scene."""
    hierarchy_field: HierarchyFieldConfig = field(default_factory=HierarchyFieldConfig)
    """The nested feature a Gaussian."""
    losses: HierarchyLossConfig = field(default_factory=HierarchyLossConfig)
    """What sharpens the features."""
    semantics: SemanticFieldConfig = field(default_factory=SemanticFieldConfig)
    """What CLIPSeg's dense features teach the Gaussians, where the views have any."""


class HiersplatModel(SplatfactoModel):
    """Gaussians with colours, geometry, nested features and, once built, a scene tree."""

    config: HiersplatModelConfig

    def populate_modules(self) -> None:
        """Make the Gaussians, the metrics, the densification strategy and the viewer's panel."""
        from pytorch_msssim import SSIM
        from torchmetrics.image import PeakSignalNoiseRatio

        with one_line_errors():
            self.gauss_params = torch.nn.ParameterDict(
                initial_parameters(self.config, self.seed_points, self.scene_box)
            )
        self.camera_optimizer = self.config.camera_optimizer.setup(
            num_cameras=self.num_train_data, device="cpu"
        )
        self.psnr = PeakSignalNoiseRatio(data_range=1.0)
        self.ssim = SSIM(data_range=1.0, size_average=True, channel=3)
        self.step = 0
        self.crop_box: OrientedBox | None = None
        # The colour that held-out images with transparency are laid over, if any.
        self._known_background: Tensor | None = (self.kwargs.get("metadata") or {}).get(
            "background_color"
        )
        if self._known_background is not None:
            self.background_color = self._known_background
        elif self.config.background_color == "random":
            self.background_color = torch.tensor(VIEWER_BACKGROUND)
        else:
            self.background_color = get_color(self.config.background_color)
        self.strategy = make_strategy(self.config, self.num_train_data)
        self.strategy_state = self.strategy.initialize_state(scene_scale=1.0)
        self.stage: HierarchyStage | None = None
        self._tree: SceneTree | None = None
        self._palette: Tensor | None = None
        self.hierarchy_metrics: HierarchyMetrics | None = None
        """Gathers scene-wide figures while a pipeline evaluates all held-out views."""
        self.hierarchy = HierarchyPanel(self.pick)
        self.semantics = SceneSemantics()
        """What the scene knows of words."""
        self.query = QueryPanel(
            lambda *question: self.semantics.search(question[0], self.device, *question[1:]),
            self.hierarchy,
            lambda: self.semantics.note,
        )

    # --- the tree ---------------------------------------------------------------------------

    @property
    def tree(self) -> SceneTree | None:
        """The scene tree; ``None`` until the hierarchy stage has built it."""
        return self._tree

    def set_tree(self, tree: SceneTree | None) -> None:
        """Give every Gaussian its ids, or take them away."""
        self._tree = tree
        self._palette = None
        if tree is not None:
            # (N, 9): one colour a level, small to whole.
            self._palette = torch.from_numpy(level_palette(tree)).to(self.device)
        else:
            self.semantics.forget()
        self.hierarchy.show_tree(tree)

    def splats(self) -> Splats:
        """Return colours and geometry in the project's own form, without gradients."""
        params = {name: value.detach() for name, value in self.gauss_params.items()}
        return Splats(
            means=params["means"],
            quats=params["quats"],
            log_scales=params["scales"],
            logit_opacities=params["opacities"].squeeze(-1),
            sh=torch.cat((params["features_dc"][:, None], params["features_rest"]), dim=1),
        )

    def start_features(self, tree: SceneTree) -> None:
        """Take a tree fresh from association and start the features from it in closed form."""
        self.semantics.forget()
        self.set_tree(tree)
        parameter = self.gauss_params["hierarchy_features"]
        parameter.data = initial_features(tree, self.config.hierarchy_field).to(parameter.device)

    def finish_features(self) -> None:
        """Give every Gaussian the ids that its refined feature is nearest to."""
        assert self._tree is not None
        means = self.means.detach().cpu().numpy()
        features = self.gauss_params["hierarchy_features"].detach()
        ids = assign(features, self._tree, means, self.config.hierarchy_field)
        self.set_tree(self._tree.with_node_ids(ids[Level.SMALL], means))

    def get_extra_state(self) -> dict[str, Any]:
        """Return tree (JSON), ids of every Gaussian and semantics, for the checkpoint."""
        if self._tree is None:
            return {}
        return {
            "tree": self._tree.to_json(),
            "node_ids": torch.from_numpy(self._tree.node_ids.astype(np.int32)),
            "semantics": self.semantics.get_state(),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take the tree from a checkpoint."""
        if "tree" in state:
            self.set_tree(SceneTree.from_json(state["tree"], state["node_ids"].cpu().numpy()))
            self.semantics.set_state(state.get("semantics", {}))

    def load_state_dict(self, dict: dict[str, Any], **kwargs: Any):  # type: ignore[override]
        """Load a checkpoint with any number of Gaussians.

        Parameters are resized in place: the optimizers hold these very objects, so replacing
        them would leave a resumed run training nothing.
        """
        self.step = 30000
        count = dict["gauss_params.means"].shape[0]
        for parameter in self.gauss_params.values():
            parameter.data = parameter.data.new_zeros((count, *parameter.shape[1:]))
        return torch.nn.Module.load_state_dict(self, dict, **kwargs)

    # --- training ---------------------------------------------------------------------------

    @property
    def trains_hierarchy(self) -> bool:
        """Whether the current step belongs to the hierarchy rather than to geometry."""
        return self.training and self.stage is not None and self.stage.is_active

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Splatfacto's callbacks, between the beginning and the end of the hierarchy stage."""
        stage = HierarchyStage(self, training_callback_attributes)
        self.stage = stage
        before, after = (
            TrainingCallbackLocation.BEFORE_TRAIN_ITERATION,
            TrainingCallbackLocation.AFTER_TRAIN_ITERATION,
        )
        return [
            *super().get_training_callbacks(training_callback_attributes),
            TrainingCallback([before], stage.before_step),
            TrainingCallback([after], stage.after_step),
            TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN], stage.after_training),
        ]

    def step_post_backward(self, step: int) -> None:
        """Densify as splatfacto does while geometry is trained."""
        if not self.trains_hierarchy:
            super().step_post_backward(step)

    def get_gaussian_param_groups(self) -> dict[str, list[Parameter]]:
        """Return one group a kind of parameter, the hierarchy features among them."""
        return {name: [parameter] for name, parameter in self.gauss_params.items()}

    def get_metrics_dict(self, outputs: dict, batch: dict) -> dict[str, Tensor]:
        """Splatfacto's metrics; in the hierarchy stage only the number of Gaussians."""
        if "hierarchy_features" in outputs:
            return {"gaussian_count": torch.tensor(float(self.num_points))}
        return super().get_metrics_dict(outputs, batch)

    def get_loss_dict(
        self, outputs: dict, batch: dict, metrics_dict: dict | None = None
    ) -> dict[str, Tensor]:
        """Splatfacto's losses, or in the hierarchy stage those of the features."""
        if "hierarchy_features" in outputs:
            assert self.stage is not None
            accumulation = outputs["accumulation"]
            losses = {}
            if self.stage.is_refining:
                losses = hierarchy_losses(
                    outputs["hierarchy_features"],
                    accumulation,
                    self.stage.targets(batch["image_idx"]),
                    self.stage.codes,
                    self.config.losses,
                )
            if "semantic_features" in outputs:
                target = self.semantics.targets(batch["dense_features"])
                losses["semantics"] = distillation_loss(
                    outputs["semantic_features"], accumulation, target, self.config.semantics
                )
            # Training wants something to descend even where nothing is left to learn.
            return losses or {"hierarchy": accumulation.new_zeros((), requires_grad=True)}
        return super().get_loss_dict(outputs, batch, metrics_dict)

    def _get_downscale_factor(self) -> int:
        # Masks have the size of the images, so features are rendered at that size.
        return 1 if self.trains_hierarchy else super()._get_downscale_factor()

    def _get_background_color(self) -> Tensor:
        if self._known_background is not None and not self.training:
            return self._known_background.to(self.device)
        return super()._get_background_color()

    # --- rendering --------------------------------------------------------------------------

    def get_outputs(self, camera: Cameras) -> dict[str, Any]:
        """Render one camera.

        While geometry is trained: splatfacto's outputs. In the hierarchy stage: the features
        alone, geometry detached. Otherwise also ``level_small``, ``level_part``,
        ``level_whole`` and ``level_selected`` (H, W, 3) once there is a tree, and where it
        can be asked in words ``relevancy`` (H, W, 1) and ``semantics`` (H, W, 3).
        """
        kept = None
        if self.crop_box is not None and not self.training:
            kept = self.crop_box.within(self.means).squeeze()
            if not kept.any():
                return self.get_empty_outputs(
                    int(camera.width.item()), int(camera.height.item()), self.background_color
                )
        params = {
            name: value if kept is None else value[kept]
            for name, value in self.gauss_params.items()
        }
        view = self._view(camera)
        if self.trains_hierarchy:
            return self._render_features(params, view)
        return self._render(params, kept, view)

    def _render_features(
        self, params: dict[str, Tensor], view: dict[str, Any]
    ) -> dict[str, Tensor]:
        names = ["hierarchy_features"]
        if self.semantics.projection is not None and self.config.semantics.weight > 0:
            names.append("semantic_features")
        values = {name: params[name] for name in names}
        if self.stage is None or not self.stage.is_refining:
            # Without a gradient, rather than with one of zero, Adam lets them stand still.
            values["hierarchy_features"] = values["hierarchy_features"].detach()
        blended, alpha = blend_values(params, values, view)
        return {**blended, "accumulation": alpha}

    def _view(self, camera: Cameras) -> dict[str, Any]:
        factor = self._get_downscale_factor()
        pose = (
            self.camera_optimizer.apply_to_camera(camera)
            if self.training
            else camera.camera_to_worlds
        )
        camera.rescale_output_resolution(1 / factor)
        view = {
            "viewmats": viewmat_from_camera_to_world(pose),
            "Ks": camera.get_intrinsics_matrices().to(self.device),
            "width": int(camera.width.item()),
            "height": int(camera.height.item()),
            "rasterize_mode": self.config.rasterize_mode,
        }
        camera.rescale_output_resolution(factor)  # type: ignore[arg-type]
        self.last_size = (view["height"], view["width"])
        return view

    def _render(
        self, params: dict[str, Tensor], kept: Tensor | None, view: dict[str, Any]
    ) -> dict[str, Any]:
        with_depth = self.config.output_depth_during_training or not self.training
        colors = torch.cat((params["features_dc"][:, None], params["features_rest"]), dim=1)
        sh_degree = None
        if self.config.sh_degree > 0:
            sh_degree = min(self.step // self.config.sh_degree_interval, self.config.sh_degree)
        else:
            colors = torch.sigmoid(colors).squeeze(1)
        rendered, alpha, self.info = rasterize(
            params,
            colors,
            view,
            sh_degree=sh_degree,
            render_mode="RGB+ED" if with_depth else "RGB",
            absgrad=self.strategy.absgrad,
        )
        if self.training:
            self.strategy.step_pre_backward(
                self.gauss_params, self.optimizers, self.strategy_state, self.step, self.info
            )
        background = self._get_background_color()
        rgb = (rendered[..., :3] + (1 - alpha) * background).clamp(0, 1).squeeze(0)
        depth = None
        if with_depth:
            depth = rendered[..., 3:4]
            depth = torch.where(alpha > 0, depth, depth.detach().max()).squeeze(0)
        if not self.training:
            background = background.expand(*rgb.shape[:2], 3)
        outputs = {
            "rgb": rgb,
            "depth": depth,
            "accumulation": alpha.squeeze(0),
            "background": background,
        }
        if self._palette is not None and not self.training:
            outputs.update(self._render_levels(params, kept, view))
        return outputs

    def _render_levels(
        self, params: dict[str, Tensor], kept: Tensor | None, view: dict[str, Any]
    ) -> dict[str, Tensor]:
        assert self._palette is not None
        assert self._tree is not None
        small, part, whole = self._palette.split(3, dim=1)
        colors = {"level_small": small, "level_part": part, "level_whole": whole}
        colors["level_selected"] = self.hierarchy.gaussian_colors(self._palette)
        if self.semantics.descriptors is not None:
            colors["semantics"] = semantic_colors(self.gauss_params["semantic_features"].detach())
            colors["relevancy"] = self.query.gaussian_relevancy(self._tree).to(self.device)
        if kept is not None:
            colors = {name: value[kept] for name, value in colors.items()}
        values, alpha = blend_values(params, colors, view)
        background = LEVEL_BACKGROUND * (1 - alpha)
        return {
            # Nothing is relevant where there is nothing.
            name: value if name == "relevancy" else (value + background).clamp(0, 1)
            for name, value in values.items()
        }

    # --- evaluation and the viewer ------------------------------------------------------------

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """PSNR and SSIM of a held-out view; the scene-wide figures gather in the meantime.

        LPIPS is left out: its network would have to be downloaded.
        """
        truth = self.composite_with_background(
            self.get_gt_img(batch["image"]), outputs["background"]
        )
        predicted = outputs["rgb"]
        images = {"img": torch.cat([truth, predicted], dim=1)}
        planes = [image.movedim(-1, 0)[None] for image in (truth, predicted)]
        metrics = {"psnr": float(self.psnr(*planes)), "ssim": float(self.ssim(*planes))}
        if self._tree is not None:
            images["levels"] = torch.cat([outputs[f"level_{level.title}"] for level in Level], 1)
            if self.hierarchy_metrics is not None and "truth" in batch:
                labels = self._node_map(batch["view"], self._tree)
                self.hierarchy_metrics.update(batch["view"].name, labels, batch["truth"])
        return metrics, images

    def _node_map(self, camera: Camera, tree: SceneTree) -> Int[np.ndarray, "3 height width"]:
        """Render nodes: by learnt features, or by ids where nothing was learnt."""
        if not self.config.losses.passes:
            return render_ids(self.splats(), camera, tree.node_ids)
        features = self.gauss_params["hierarchy_features"].detach()
        return render_nodes(self.splats(), camera, features, tree, self.config.hierarchy_field)

    def pick(self, origin: Tensor, direction: Tensor) -> int | None:
        """Return the index of the first Gaussian a ray meets; ``None`` where there is none.

        Args:
            origin: (3,), in the scene's frame.
            direction: (3,), of any length.
        """
        with torch.no_grad():
            return pick_gaussian(self.splats(), origin.to(self.device), direction.to(self.device))
