"""The pipeline: nerfstudio's, whose evaluation also prints the scene-wide hierarchy figures."""

from dataclasses import dataclass, field
from pathlib import Path

from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig

from hiersplat.hierarchy.metrics import HierarchyMetrics
from hiersplat.plugin.datamanager import HiersplatDataManagerConfig
from hiersplat.plugin.model import HiersplatModel, HiersplatModelConfig


@dataclass
class HiersplatPipelineConfig(VanillaPipelineConfig):
    """Data and model of hiersplat."""

    _target: type = field(default_factory=lambda: HiersplatPipeline)
    datamanager: HiersplatDataManagerConfig = field(default_factory=HiersplatDataManagerConfig)
    model: HiersplatModelConfig = field(default_factory=HiersplatModelConfig)


class HiersplatPipeline(VanillaPipeline):
    """A vanilla pipeline with figures that only all held-out views together can give."""

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
