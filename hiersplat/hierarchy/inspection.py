"""Everything an inspection knows about a run: agreement, consistency across views, pictures."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int8

from hiersplat.hierarchy.consistency import AGREES, SILENT, ConsistencyMeter, ConsistencyReport
from hiersplat.hierarchy.evidence import (
    Evidence,
    Progress,
    agreement_of_gaussians,
    gather_evidence,
    masks_as_nodes,
)
from hiersplat.hierarchy.run import Run, RunView
from hiersplat.hierarchy.surface import (
    PairConsistency,
    ViewConsistency,
    pair_consistency,
    sample_surface,
    view_consistency,
)
from hiersplat.levels import Level

_POINTS = 20_000
"""Surface points drawn over all views."""


@dataclass(frozen=True)
class SurfaceConsistency:
    """How far views agree on surface points, at one level (metrics.md, 7 and 8)."""

    masks: ViewConsistency
    """The views' own masks, named after the nodes they lie on."""
    rendered: ViewConsistency
    """The rendered tree: the difference is what the 3D model adds."""
    pairs: PairConsistency
    """The views' own masks, without any names."""


@dataclass(frozen=True)
class Inspection:
    """What was found about a run."""

    run: Run
    views: tuple[Evidence, ...]
    """Views with masks."""
    agreements: tuple[Int8[np.ndarray, "3 height width"], ...]
    """What the pixels of every view say."""
    report: ConsistencyReport
    surfaces: tuple[SurfaceConsistency, ...]
    """Small, part, whole."""
    gaussian_agreement: Float32[np.ndarray, "3 num_gaussians"]
    """Share of agreeing blending weight of every Gaussian; NaN where no mask shows it."""

    def pixel_agreement(self, view: int, level: Level) -> float:
        """Share of a view's judged pixels that agree; NaN where none is judged."""
        judged = self.agreements[view][level] != SILENT
        agreeing = self.agreements[view][level] == AGREES
        return float(agreeing.sum() / judged.sum()) if judged.any() else float("nan")


def inspect_run(
    run: Run,
    views: Sequence[RunView],
    max_size: int | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """Compare the masks of views with the run's tree.

    Args:
        run: The finished run.
        views: Views with masks.
        max_size: Largest side of a view in pixels; larger ones are reduced.
        progress: Told after every view.

    Raises:
        ValueError: If the masks of a view cannot be read or do not fit its camera.
    """
    meter = ConsistencyMeter(run.tree)
    evidence: list[Evidence] = []
    agreements = []
    for view in gather_evidence(run, views, max_size, progress):
        agreements.append(meter.update(view.name, view.rendered, view.masks))
        evidence.append(view)
    cameras = [view.camera for view in evidence]
    depths = [view.depth for view in evidence]
    points = sample_surface(cameras, depths, math.ceil(_POINTS / max(len(evidence), 1)))
    surfaces = []
    for level in Level:
        rendered = [view.rendered[level] for view in evidence]
        masks = [view.masks[level] for view in evidence]
        named = [masks_as_nodes(*both) for both in zip(masks, rendered, strict=True)]
        surfaces.append(
            SurfaceConsistency(
                masks=view_consistency(points.labels(named)),
                rendered=view_consistency(points.labels(rendered)),
                pairs=pair_consistency(points.labels(masks)),
            )
        )
    return Inspection(
        run=run,
        views=tuple(evidence),
        agreements=tuple(agreements),
        report=meter.compute(),
        surfaces=tuple(surfaces),
        gaussian_agreement=agreement_of_gaussians(run.splats, cameras, agreements),
    )


def report_as_json(inspection: Inspection) -> dict[str, Any]:
    """Return the report as plain JSON; NaN becomes ``null``."""
    report, tree = inspection.report, inspection.run.tree
    levels = {}
    for level, surface in zip(report.levels, inspection.surfaces, strict=True):
        levels[level.level.title] = {
            "num_nodes": level.num_nodes,
            "agreement": level.agreement,
            "pixel_agreement": level.pixel_agreement,
            "coverage": level.coverage,
            "view_consistency_masks": asdict(surface.masks),
            "view_consistency_rendered": asdict(surface.rendered),
            "pair_consistency": asdict(surface.pairs),
            "views": dict(level.worst_views),
        }
    nodes = [
        {
            "id": node.node_id,
            "level": node.level.title,
            "name": tree.node(node.node_id).name,
            "parent": tree.parent(node.node_id),
            "num_gaussians": tree.node(node.node_id).num_gaussians,
            "agreement": node.agreement,
            "coverage": node.coverage,
            "views": dict(node.views),
        }
        for node in report.nodes
    ]
    suggestions = [
        {**asdict(suggestion), "level": suggestion.level.title} for suggestion in report.suggestions
    ]
    content = {"levels": levels, "nodes": nodes, "suggestions": suggestions}
    return {"views": [view.name for view in inspection.views], **_without_nan(content)}


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    if isinstance(value, float | np.floating):
        return None if math.isnan(value) else float(value)
    return value
