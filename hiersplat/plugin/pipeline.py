"""The pipeline: nerfstudio's, whose evaluation also prints the scene-wide hierarchy figures."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig

from hiersplat.hierarchy.metrics import HierarchyMetrics
from hiersplat.plugin.datamanager import HiersplatDataManagerConfig
from hiersplat.plugin.errors import InputError
from hiersplat.plugin.model import HiersplatModel, HiersplatModelConfig


@dataclass
class HiersplatPipelineConfig(VanillaPipelineConfig):
    """Data and model of hiersplat."""

    _target: type = field(default_factory=lambda: HiersplatPipeline)
    datamanager: HiersplatDataManagerConfig = field(default_factory=HiersplatDataManagerConfig)
    model: HiersplatModelConfig = field(default_factory=HiersplatModelConfig)


class HiersplatPipeline(VanillaPipeline):
    """A vanilla pipeline with figures that only all held-out views together can give."""

    def __init__(
        self,
        config: HiersplatPipelineConfig,
        device: str,
        test_mode: Literal["test", "val", "inference"] = "val",
        **kwargs: Any,
    ) -> None:
        geometry = config.model.geometry
        if test_mode != "val":
            # A finished run has its geometry in its own checkpoint; where it came from may be gone.
            config.model.geometry = None
        elif geometry is not None and not geometry.exists():
            # Before views are prepared for it, which may take long.
            raise InputError(
                f"error: {geometry}: no such run or .ply; mend --pipeline.model.geometry"
            )
        super().__init__(config, device, test_mode, **kwargs)

    def get_average_eval_image_metrics(
        self, step: int | None = None, output_path: Path | None = None, get_std: bool = False
    ) -> dict[str, float]:
        """Return means over held-out views and, where there is truth, the hierarchy's figures."""
        model = self.model
        assert isinstance(model, HiersplatModel)
        tree = model.tree
        gathered = HierarchyMetrics.of_tree(tree) if tree is not None else HierarchyMetrics()
        model.hierarchy_metrics = gathered
        try:
            metrics = super().get_average_eval_image_metrics(step, output_path, get_std)
        finally:
            model.hierarchy_metrics = None
        if gathered.views:
            metrics.update(gathered.compute())
        return metrics
