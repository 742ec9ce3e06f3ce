from pathlib import Path
from types import SimpleNamespace

import pytest

from hiersplat.hierarchy.losses import HierarchyLossConfig
from hiersplat.plugin.stage import HierarchyStage


class Prepared(list):
    feature_cache: Path | None = None


def stage_of(total: int = 1000, passes: int = 2, features: bool = False, **model) -> HierarchyStage:
    """A stage on ten views, without a model to train."""
    prepared = Prepared(range(10))
    prepared.feature_cache = Path("features") if features else None
    config = {
        "hierarchy_steps": 300,
        "geometry": None,
        "losses": HierarchyLossConfig(passes=passes),
    }
    trainer = SimpleNamespace(
        base_dir=Path("run"), _start_step=0, config=SimpleNamespace(max_num_iterations=total)
    )
    return HierarchyStage(
        SimpleNamespace(  # pyright: ignore[reportArgumentType]
            config=SimpleNamespace(**{**config, **model}),
            strategy=SimpleNamespace(refine_stop_iter=10_000),
            tree=None,
        ),
        SimpleNamespace(  # pyright: ignore[reportArgumentType]
            trainer=trainer,
            pipeline=SimpleNamespace(datamanager=SimpleNamespace(prepared=prepared, seconds={})),
        ),
    )


@pytest.mark.parametrize(
    ("settings", "start"),
    [
        ({}, 980),
        ({"passes": 0}, 999),
        ({"features": True}, 750),
        ({"features": True, "total": 2000}, 1700),
        ({"geometry": Path("other")}, 0),
    ],
)
def test_stage_takes_the_steps_it_can_use_and_at_most_a_quarter(settings, start):
    stage = stage_of(**settings)
    assert stage.start == start
    assert stage.end == (20 if "geometry" in settings else settings.get("total", 1000))


def test_edges_are_learnt_in_the_first_passes_only():
    stage = stage_of(features=True)
    stage.is_active = True
    learnt = []
    for step in range(stage.start + 1, stage.end):  # at its first step the tree is built
        stage.before_step(step)
        learnt.append(stage.is_refining)
    assert learnt == [True] * 19 + [False] * (len(learnt) - 19)
