"""The methods that ``ns-train`` offers.

Everything here is imported by every nerfstudio command, so nothing heavy may be: sam2,
transformers, open3d and numba are imported where they are used.
"""

from importlib import resources
from pathlib import Path

import torch
from nerfstudio.configs.base_config import MachineConfig, ViewerConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.plugins.types import MethodSpecification

from hiersplat.hierarchy.run import allow_numpy_scalars
from hiersplat.plugin.datamanager import HiersplatDataManagerConfig
from hiersplat.plugin.model import HiersplatModelConfig
from hiersplat.plugin.pipeline import HiersplatPipelineConfig
from hiersplat.plugin.trainer import HiersplatTrainerConfig
from hiersplat.segmentation.segmenter import load_segmentation_config
from hiersplat.semantics.config import FeaturesConfig

# Every nerfstudio command that loads a run imports this module first.
allow_numpy_scalars()


def _preset(name: str) -> Path:
    return Path(str(resources.files("hiersplat.configs") / f"{name}.yaml"))


def _optimizers(max_steps: int) -> dict:
    """Splatfacto's optimizers, and those of the features that the hierarchy stage trains."""

    def adam(lr: float) -> dict:
        return {"optimizer": AdamOptimizerConfig(lr=lr, eps=1e-15), "scheduler": None}

    def decaying(lr: float, lr_final: float, warmup_steps: int = 0) -> dict:
        schedule = ExponentialDecaySchedulerConfig(
            lr_final=lr_final, max_steps=max_steps, warmup_steps=warmup_steps, lr_pre_warmup=0
        )
        return {**adam(lr), "scheduler": schedule}

    return {
        "means": decaying(1.6e-4, 1.6e-6),
        "features_dc": adam(0.0025),
        "features_rest": adam(0.0025 / 20),
        "opacities": adam(0.05),
        "scales": adam(0.005),
        "quats": adam(0.001),
        "hierarchy_features": adam(0.02),
        "semantic_features": adam(0.02),
        "camera_opt": decaying(1e-4, 5e-7, warmup_steps=1000),
        "bilateral_grid": decaying(2e-3, 1e-4, warmup_steps=1000),
    }


def _trainer(method_name: str, preset: str, max_steps: int = 30000) -> HiersplatTrainerConfig:
    segmentation = load_segmentation_config(_preset(preset))
    return HiersplatTrainerConfig(
        method_name=method_name,
        steps_per_eval_image=1000,
        steps_per_eval_batch=0,
        steps_per_save=2000,
        steps_per_eval_all_images=10000,
        max_num_iterations=max_steps,
        mixed_precision=False,
        machine=MachineConfig(device_type="cuda" if torch.cuda.is_available() else "cpu"),
        pipeline=HiersplatPipelineConfig(
            datamanager=HiersplatDataManagerConfig(
                dataparser=NerfstudioDataParserConfig(load_3D_points=True),
                cache_images_type="uint8",
                segmentation=segmentation,
            ),
            model=HiersplatModelConfig(),
        ),
        optimizers=_optimizers(max_steps),
        viewer=ViewerConfig(num_rays_per_chunk=1 << 15),
        vis="viewer",
    )


def _quickstart() -> HiersplatTrainerConfig:
    """Small, without weights, and to the end in minutes on two CPU cores."""
    steps = 1200
    config = _trainer("hiersplat-quickstart", "quickstart", max_steps=steps)
    # No window and no server: the run ends by itself, and ns-viewer shows it afterwards.
    config.vis = "tensorboard"
    config.viewer.quit_on_train_completion = True
    config.steps_per_eval_image = 0
    config.steps_per_eval_all_images = 0
    config.steps_per_save = 500
    assert isinstance(config.pipeline, HiersplatPipelineConfig)
    config.pipeline.datamanager.features = FeaturesConfig(features="none")
    model = config.pipeline.model
    model.hierarchy_steps = 300
    # The outlines of masks found without weights are coarser than what lifting makes of them all.
    model.losses.passes = 0
    model.num_random = 10000
    model.max_gaussians = 25000
    model.num_downscales = 1
    model.resolution_schedule = 300
    model.sh_degree = 1
    model.sh_degree_interval = 500
    model.warmup_length = 200
    model.stop_split_at = 800
    model.reset_alpha_every = 1000
    model.cull_alpha_thresh = 0.02
    for name, factor in (("means", 4.0), ("features_dc", 2.0), ("scales", 2.0)):
        config.optimizers[name]["optimizer"].lr *= factor
    return config


hiersplat = MethodSpecification(
    config=_trainer("hiersplat", "quality"),
    description="Small, part and whole on Gaussians; masks of SAM 2 large, 32 points a side.",
)
hiersplat_speed = MethodSpecification(
    config=_trainer("hiersplat-speed", "speed"),
    description="hiersplat with masks of SAM 2 small, 16 points a side: quicker masks.",
)
hiersplat_coverage = MethodSpecification(
    config=_trainer("hiersplat-coverage", "coverage"),
    description="hiersplat with masks of SAM 2 large, 64 points a side: more small masks.",
)
hiersplat_quickstart = MethodSpecification(
    config=_quickstart(),
    description="hiersplat without weights, small enough for a CPU: minutes on two cores.",
)
