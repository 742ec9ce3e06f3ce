"""The hierarchy stage: the last steps of training, in which geometry stands still.

At its first step the masks of all views are lifted and associated into the scene tree, and the
features start from it in closed form. Its steps sharpen the features. After its last step every
Gaussian gets its ids, before nerfstudio writes the last checkpoint.
"""

import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from nerfstudio.engine.callbacks import TrainingCallbackAttributes
from nerfstudio.utils.rich_utils import CONSOLE
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from hiersplat.commands import command
from hiersplat.gaussians.lifting import render_ids
from hiersplat.hierarchy.build import build_tree
from hiersplat.hierarchy.describing import describe_tree
from hiersplat.hierarchy.field import level_codes
from hiersplat.hierarchy.losses import edge_targets
from hiersplat.hierarchy.run import HIERARCHY_FOLDER, RunView, save_hierarchy
from hiersplat.hierarchy.semantic_field import lift_semantics
from hiersplat.levels import Level
from hiersplat.plugin.datamanager import HiersplatDataManager, Split
from hiersplat.plugin.errors import one_line_errors
from hiersplat.plugin.matching import require_match
from hiersplat.plugin.sheet import draw_sheet
from hiersplat.plugin.summary import write_summary
from hiersplat.semantics.descriptors import DESCRIPTORS_FILE, NodeDescriptors
from hiersplat.semantics.projection import fit_projection

if TYPE_CHECKING:
    from hiersplat.plugin.model import HiersplatModel

_MATCHED_VIEWS = 8
"""Views that given geometry is compared with."""


class HierarchyStage:
    """Builds, trains and saves the hierarchy at the end of a training run."""

    def __init__(self, model: "HiersplatModel", attributes: TrainingCallbackAttributes) -> None:
        trainer, pipeline = attributes.trainer, attributes.pipeline
        assert trainer is not None
        assert pipeline is not None
        self._model = model
        self._datamanager = cast(HiersplatDataManager, pipeline.datamanager)
        self._run: Path = trainer.base_dir
        steps = model.config.hierarchy_steps
        self._passes = model.config.losses.passes * len(self._datamanager.prepared)
        if self._datamanager.prepared.feature_cache is None:
            steps = min(steps, max(self._passes, 1))  # There is nothing else to learn.
        if model.config.geometry is not None:
            CONSOLE.log(f"Geometry is taken as it is; only the {steps} hierarchy steps are run.")
            trainer.config.max_num_iterations = steps
        total = trainer.config.max_num_iterations
        first = trainer._start_step
        self.end = first + total
        self.start = (
            first if model.config.geometry is not None else self.end - min(steps, total // 4)
        )
        self.is_active = False
        self.is_refining = False
        """Whether the current step still belongs to the passes in which edges are learnt."""
        # Densification in the last moment would leave Gaussians that no view has shaped yet.
        strategy = model.strategy
        strategy.refine_stop_iter = min(strategy.refine_stop_iter, self.start)
        self._seconds = dict(self._datamanager.seconds)
        self._clock = time.perf_counter()
        self._targets = lru_cache(maxsize=64)(self._edge_targets)
        self.codes: tuple[Tensor, ...] = ()
        """Addresses of the tree's nodes per level, while the stage is at work."""

    def _lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._seconds[stage] = now - self._clock
        self._clock = now

    def before_step(self, step: int) -> None:
        """Begin the stage when its first step comes."""
        if step == self.start and step < self.end:
            with one_line_errors():
                self._begin()
        elif not self.is_active and self._model.tree is not None:
            # Geometry goes on from a finished run, so its ids no longer fit.
            self._model.set_tree(None)
        self.is_refining = self.is_active and step - self.start < self._passes

    def after_step(self, step: int) -> None:
        """End the stage when its last step is done."""
        if self.is_active and step == self.end - 1:
            with one_line_errors():
                self._finish()

    def targets(self, index: int) -> Tensor:
        """Node (3, H, W) of every pixel of a training view, edges where its masks have them."""
        return self._targets(index).to(self._model.device)

    def _edge_targets(self, index: int) -> Tensor:
        model, manager = self._model, self._datamanager
        assert model.tree is not None
        camera = manager.camera("train", index)
        nodes = render_ids(model.splats(), camera, model.tree.node_ids)
        return torch.from_numpy(edge_targets(manager.pyramid(index).labels, nodes, model.tree))

    def _begin(self) -> None:
        model, manager = self._model, self._datamanager
        if model.config.geometry is not None:
            self._check_match()
        self.is_active = True
        self._lap("geometry")
        count = len(manager.prepared)
        views = ((manager.camera("train", i), manager.pyramid(i)) for i in range(count))
        columns = (
            TextColumn("hierarchy: {task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=CONSOLE) as progress:
            task = progress.add_task("lifting", total=1.0)
            tree = build_tree(
                model.splats(),
                views,
                model.config.association,
                count,
                lambda name, done: progress.update(task, description=name, completed=done),
            )
            progress.update(task, description="done", completed=1.0)
        self._lap("association")
        model.start_features(tree)
        codes = level_codes(tree, model.config.hierarchy_field)
        self.codes = tuple(code.to(model.device) for code in codes)
        counts = ", ".join(f"{len(tree.level_ids(level))} {level.title}" for level in Level)
        CONSOLE.log(
            f"Hierarchy of {count} views in {self._seconds['association']:.1f} s: {counts} nodes."
        )
        if manager.prepared.feature_cache is not None:
            self._start_semantics()
            self._lap("semantics")

    def _start_semantics(self) -> None:
        """Fit the short projection of the views' dense features, and lift what it makes of them."""
        model, manager = self._model, self._datamanager
        indices = range(len(manager.prepared))

        def dense(index: int):
            features = manager.features(index)
            assert features is not None
            return features.dense

        dims = model.config.semantics.dims
        projection = fit_projection(map(dense, indices), dims)
        model.semantics.projection = projection
        cameras = [manager.camera("train", index) for index in indices]
        targets = (torch.from_numpy(projection.project(dense(index))) for index in indices)
        parameter = model.gauss_params["semantic_features"]
        parameter.data = lift_semantics(model.splats(), cameras, targets).to(parameter.device)
        CONSOLE.log(
            f"CLIPSeg features are distilled: {dims} values a Gaussian hold "
            f"{projection.explained:.0%} of their variance."
        )

    def _check_match(self) -> None:
        """Compare the given geometry with some views: another data set's would lift nonsense."""
        model, manager = self._model, self._datamanager
        cameras = manager.train_dataset.cameras
        count = min(_MATCHED_VIEWS, len(cameras))
        places = torch.linspace(0, len(cameras) - 1, count).round().long().tolist()
        model.eval()
        with torch.no_grad():
            renderings = [
                model.get_outputs(cameras[i : i + 1].to(model.device))["rgb"].cpu() for i in places
            ]
        model.train()
        images = [torch.from_numpy(manager.image("train", i)) / 255 for i in places]
        require_match(str(model.config.geometry), str(manager.data), renderings, images)

    def _finish(self) -> None:
        model = self._model
        model.finish_features()
        self._lap("refinement")
        assert model.tree is not None
        folder = self._run / HIERARCHY_FOLDER
        save_hierarchy(folder, model.tree, self._run_views())
        self.is_active = False
        if self._datamanager.prepared.feature_cache is not None:
            model.semantics.descriptors = self._describe()
            model.semantics.descriptors.save(folder / DESCRIPTORS_FILE)
            self._lap("descriptors")
        draw_sheet(model, self._datamanager, folder / "sheet.png")
        self._lap("pictures")
        write_summary(folder / "summary.json", model.tree, self._datamanager, self._seconds)

    def _describe(self) -> NodeDescriptors:
        """Bring together what CLIPSeg says of the masks that show each node."""
        model, manager = self._model, self._datamanager
        assert model.tree is not None
        tree, splats = model.tree, model.splats()

        def observed():
            for index in range(len(manager.prepared)):
                features = manager.features(index)
                assert features is not None
                nodes = render_ids(splats, manager.camera("train", index), tree.node_ids)
                yield manager.pyramid(index).labels, nodes, features.embeddings

        return describe_tree(tree, observed(), manager.config.features.checkpoint)

    def after_training(self, step: int) -> None:
        """Say where to look, once nerfstudio has written the last checkpoint."""
        folder = self._run / HIERARCHY_FOLDER
        config = self._run / "config.yml"
        # Lines that are to be copied are not broken.
        CONSOLE.print(f"Pictures: {folder / 'sheet.png'}", soft_wrap=True)
        CONSOLE.print(f"Figures:  {command('hiersplat-report', self._run)}", soft_wrap=True)
        CONSOLE.print(f"Viewer:   {command('ns-viewer', '--load-config', config)}", soft_wrap=True)

    def _run_views(self) -> list[RunView]:
        manager = self._datamanager
        views = []
        splits: tuple[Split, ...] = ("train", "eval")
        for split in splits:
            for index, image in enumerate(manager.dataset(split).image_filenames):
                views.append(
                    RunView(
                        split=split,
                        camera=manager.camera(split, index),
                        image=image.absolute(),
                        pyramid=manager.prepared.pyramid_path(index).absolute()
                        if split == "train"
                        else None,
                        labels=manager.truth_path(split, index),
                    )
                )
        return views
