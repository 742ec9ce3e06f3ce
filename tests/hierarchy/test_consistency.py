import numpy as np
import pytest
import torch

from hiersplat.gaussians.cameras import Camera
from hiersplat.gaussians.splats import Splats
from hiersplat.hierarchy.consistency import AGREES, DISAGREES, SILENT, ConsistencyMeter
from hiersplat.hierarchy.evidence import agreement_of_gaussians, masks_as_nodes
from hiersplat.hierarchy.tree import Node, SceneTree
from hiersplat.levels import UNLABELLED, Level

# One whole (0) of two parts (1, 2) of two smalls each (3, 4 and 5, 6).
NODES = (
    Node(0, Level.WHOLE, -1),
    Node(1, Level.PART, 0),
    Node(2, Level.PART, 0),
    *(Node(3 + i, Level.SMALL, 1 + i // 2) for i in range(4)),
)
TREE = SceneTree(NODES, np.array([[3, 4, 5, 6], [1, 1, 2, 2], [0, 0, 0, 0]], np.int32))


def rendered_view() -> np.ndarray:
    """Ten rows; smalls are stripes of 8 columns each."""
    small = np.tile(np.repeat([3, 4, 5, 6], 8), (10, 1))
    part = np.where(small < 5, 1, 2)
    return np.stack([small, part, np.zeros_like(small)])


def test_masks_like_the_nodes_agree_everywhere():
    meter = ConsistencyMeter(TREE)
    for name in "ab":
        agreement = meter.update(name, rendered_view(), rendered_view() + 20)
        assert (agreement == AGREES).all()
    report = meter.compute()
    for level in report.levels:
        assert (level.agreement, level.pixel_agreement, level.coverage) == (1.0, 1.0, 1.0)
    assert [level.num_nodes for level in report.levels] == [4, 2, 1]
    assert report.suggestions == ()
    assert report.node(5).views == (("a", 1.0), ("b", 1.0))


def test_mask_over_two_nodes_agrees_with_the_larger_share_only():
    masks = rendered_view()
    masks[Level.SMALL][:, 8:12] = 3  # the mask of node 3 takes half of node 4
    agreement = ConsistencyMeter(TREE).update("view", rendered_view(), masks)
    assert (agreement[Level.SMALL][:, 8:12] == DISAGREES).all()
    assert (agreement[Level.SMALL][:, :8] == AGREES).all()
    assert (agreement[Level.SMALL][:, 12:] == AGREES).all()


def test_pixels_without_mask_or_node_are_silent_and_lower_coverage():
    rendered, masks = rendered_view(), rendered_view()
    masks[:, :, :4] = UNLABELLED  # half of node 3
    rendered[:, :, 28:] = UNLABELLED  # half of node 6
    meter = ConsistencyMeter(TREE)
    agreement = meter.update("view", rendered, masks)
    assert (agreement[:, :, :4] == SILENT).all()
    assert (agreement[:, :, 28:] == SILENT).all()
    report = meter.compute()
    assert report.levels[Level.WHOLE].coverage == pytest.approx(24 / 28)
    assert report.node(3).coverage == 0.5
    assert report.node(3).agreement == 1.0
    assert report.node(6).coverage == 1.0


def test_worst_views_come_first():
    meter = ConsistencyMeter(TREE)
    meter.update("right", rendered_view(), rendered_view())
    wrong = rendered_view()
    wrong[Level.PART] = 1
    meter.update("wrong", rendered_view(), wrong)
    report = meter.compute()
    assert report.node(2).views == (("wrong", 0.5), ("right", 1.0))
    assert report.levels[Level.PART].worst_views == (("wrong", 0.5), ("right", 1.0))


def test_nodes_that_most_views_draw_as_one_are_a_likely_merge():
    meter = ConsistencyMeter(TREE)
    merged = rendered_view()
    merged[Level.SMALL][merged[Level.SMALL] == 4] = 3
    for name, masks in (("a", merged), ("b", merged), ("c", rendered_view())):
        meter.update(name, rendered_view(), masks)
    suggestions = meter.compute().suggestions
    assert [(s.kind, s.level, s.nodes) for s in suggestions] == [("merge", Level.SMALL, (3, 4))]
    assert (suggestions[0].votes, suggestions[0].num_views) == (2, 3)


def test_node_that_most_views_draw_as_several_is_a_likely_split():
    meter = ConsistencyMeter(TREE)
    split = rendered_view()
    split[Level.PART][:, :8] = 9
    for name, masks in (("a", split), ("b", split), ("c", rendered_view())):
        meter.update(name, rendered_view(), masks)
    suggestions = meter.compute().suggestions
    assert [(s.kind, s.level, s.nodes) for s in suggestions] == [("split", Level.PART, (1,))]


def test_one_view_alone_suggests_nothing():
    merged = rendered_view()
    merged[Level.SMALL] = 3
    meter = ConsistencyMeter(TREE)
    meter.update("a", rendered_view(), merged)
    assert meter.compute().suggestions == ()


def test_node_that_no_view_sees_has_no_agreement():
    rendered = rendered_view()
    rendered[Level.SMALL][rendered[Level.SMALL] == 6] = 5
    meter = ConsistencyMeter(TREE)
    meter.update("a", rendered, rendered)
    report = meter.compute()
    assert np.isnan(report.node(6).agreement)
    assert report.node(6).views == ()
    assert report.levels[Level.SMALL].agreement == 1.0


def test_node_of_few_pixels_does_not_count_as_seen():
    rendered = rendered_view()
    rendered[Level.SMALL][:, 1:8] = 4
    rendered[Level.SMALL][:6, 0] = 4  # node 3 keeps 4 pixels
    meter = ConsistencyMeter(TREE)
    meter.update("a", rendered, rendered)
    assert meter.compute().node(3).views == ()


def test_report_without_views_is_refused():
    with pytest.raises(ValueError, match="no view has masks"):
        ConsistencyMeter(TREE).compute()


def test_maps_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="shape"):
        ConsistencyMeter(TREE).update("a", rendered_view(), rendered_view()[:, :5])


def test_unknown_node_is_refused():
    meter = ConsistencyMeter(TREE)
    meter.update("a", rendered_view(), rendered_view())
    with pytest.raises(ValueError, match="no node 99"):
        meter.compute().node(99)


def test_masks_take_the_name_of_the_node_below_them():
    rendered = rendered_view()[Level.SMALL]
    masks = np.where(rendered == 3, 0, np.where(rendered == 4, 1, UNLABELLED))
    masks[:, 16] = 1  # spills over node 5, but lies on node 4 by most of it
    named = masks_as_nodes(masks, rendered)
    assert (named[masks == 0] == 3).all()
    assert (named[masks == 1] == 4).all()
    assert (named[masks == UNLABELLED] == UNLABELLED).all()
    assert (masks_as_nodes(masks * 0, rendered * 0 - 1) == UNLABELLED).all()


def test_background_that_touches_a_node_is_not_named_after_it():
    rendered = np.full((10, 10), UNLABELLED)
    rendered[:3] = 5
    masks = np.zeros((10, 10), np.int32)
    masks[:2] = 1
    named = masks_as_nodes(masks, rendered)  # one row of the background's mask lies on the node
    assert (named[masks == 0] == UNLABELLED).all()
    assert (named[masks == 1] == 5).all()


def test_gaussians_agree_as_the_pixels_that_show_them():
    # Two Gaussians side by side, small enough not to mix.
    splats = Splats(
        means=torch.tensor([[-0.5, 0, 2.0], [0.5, 0, 2.0], [0, 0, -5.0]]),
        quats=torch.tensor([[1.0, 0, 0, 0]] * 3),
        log_scales=torch.full((3, 3), 0.05).log(),
        logit_opacities=torch.full((3,), 4.0),
        sh=torch.zeros(3, 1, 3),
    )
    K = torch.tensor([[32.0, 0, 16], [0, 32, 16], [0, 0, 1]])
    camera = Camera("view", torch.eye(4), K, 32, 32)
    first = np.full((3, 32, 32), AGREES, np.int8)
    second = np.full((3, 32, 32), AGREES, np.int8)
    second[:, :, :16] = DISAGREES
    second[Level.WHOLE] = SILENT
    shares = agreement_of_gaussians(splats, [camera, camera], [first, second])
    np.testing.assert_allclose(shares[Level.SMALL, :2], [0.5, 1.0], atol=1e-4)
    np.testing.assert_allclose(shares[Level.WHOLE, :2], [1.0, 1.0], atol=1e-4)
    assert np.isnan(shares[:, 2]).all()  # behind the camera
