import numpy as np
import pytest
import torch

from hiersplat.hierarchy.tree import Node, SceneTree
from hiersplat.levels import UNLABELLED, Level
from hiersplat.plugin.query_panel import WHERE, QueryPanel
from hiersplat.plugin.semantics import SceneSemantics, semantic_colors
from hiersplat.plugin.viewer import HierarchyPanel
from hiersplat.semantics.descriptors import NodeDescriptors
from hiersplat.semantics.micro_model import write_random_clipseg
from hiersplat.semantics.projection import fit_projection
from hiersplat.semantics.query import Ranking

NODES = {0: Level.WHOLE, 1: Level.PART, 2: Level.PART}
RELEVANCY = {0: 0.4, 1: 0.9, 2: 0.2}


@pytest.fixture
def tree() -> SceneTree:
    """Whole 0 of parts 1 and 2, each of one small; the last Gaussian is unlabelled."""
    nodes = [
        Node(0, Level.WHOLE, UNLABELLED, num_gaussians=2),
        Node(1, Level.PART, 0, num_gaussians=1),
        Node(2, Level.PART, 0, num_gaussians=1),
        Node(3, Level.SMALL, 1, num_gaussians=1),
        Node(4, Level.SMALL, 2, num_gaussians=1),
    ]
    ids = np.array([[3, 4, -1], [1, 2, -1], [0, 0, -1]], np.int32)
    return SceneTree(tuple(nodes), ids)


@pytest.fixture
def asked() -> list[tuple]:
    return []


@pytest.fixture
def panel(tree: SceneTree, asked: list[tuple]) -> QueryPanel:
    def search(text: str, level: Level | None, within: int | None) -> Ranking:
        if not text:
            raise ValueError("the text is empty")
        asked.append((text, level, within))
        fits = [n for n, own in NODES.items() if level in (None, own)]
        best_first = np.array(sorted(fits, key=lambda n: -RELEVANCY[n]), np.int32)
        return Ranking(best_first, np.array([RELEVANCY[n] for n in best_first], np.float32))

    tree_panel = HierarchyPanel(lambda origin, direction: None)
    tree_panel.show_tree(tree)
    return QueryPanel(search, tree_panel, lambda: "knows only drawings")


def test_a_text_is_asked_at_the_chosen_level(panel: QueryPanel, asked: list[tuple]):
    panel.a_text.value = "knob"
    panel.find()
    assert asked == [("knob", Level.PART, None)]
    assert "node 1" in panel.f_answer.value
    assert "0.90" in panel.f_answer.value
    assert "1 found" in panel.f_answer.value
    assert "knows only drawings" in panel.f_answer.value


def test_a_text_is_asked_everywhere_or_inside_a_node(panel: QueryPanel, asked: list[tuple]):
    panel.a_text.value = "knob"
    panel.b_where.value = WHERE[1]
    panel.find()
    panel.b_where.value = WHERE[2]
    panel.find()
    assert "no node is chosen" in panel.f_answer.value
    panel._tree_panel[0].select(1)
    panel.find()
    assert asked == [("knob", None, None), ("knob", None, 1)]


def test_gaussians_are_as_relevant_as_the_best_of_their_nodes(panel: QueryPanel, tree: SceneTree):
    assert (panel.gaussian_relevancy(tree) == 0).all()
    panel.a_text.value = "knob"
    panel.b_where.value = WHERE[1]
    panel.find()
    heat = panel.gaussian_relevancy(tree)
    torch.testing.assert_close(heat, torch.tensor([[0.9], [0.4], [0.0]]))
    panel.forget()
    assert (panel.gaussian_relevancy(tree) == 0).all()


def test_the_best_node_is_chosen_in_the_tree_panel(panel: QueryPanel):
    panel.select_best()
    assert panel._tree_panel[0].node is None
    panel.a_text.value = "knob"
    panel.find()
    panel.select_best()
    assert panel._tree_panel[0].node == 1


def test_what_cannot_be_asked_is_said_and_leaves_no_answer(panel: QueryPanel, tree: SceneTree):
    panel.a_text.value = "knob"
    panel.find()
    panel.a_text.value = ""
    panel.find()
    assert panel.f_answer.value == "the text is empty"
    assert (panel.gaussian_relevancy(tree) == 0).all()


def test_the_viewer_finds_the_tree_panels_widgets_once(panel: QueryPanel):
    assert not list(panel.children())


def test_a_scene_without_features_says_that_it_cannot_be_asked():
    with pytest.raises(ValueError, match="without semantic features"):
        SceneSemantics().search("mug", torch.device("cpu"), None, None)


def test_semantics_travel_through_a_checkpoint_and_answer(tmp_path):
    folder = write_random_clipseg(
        tmp_path / "clipseg", ["red", "mug", "object", "things", "stuff", "texture"]
    )
    vectors = np.random.default_rng(0).normal(size=(3, 2, 24))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    semantics = SceneSemantics()
    semantics.projection = fit_projection([np.random.default_rng(1).normal(size=(4, 4, 24))], 3)
    semantics.descriptors = NodeDescriptors(
        np.array([0, 1, 2], np.int32),
        np.array([2, 1, 1], np.int8),
        np.array([-1, 0, 0], np.int32),
        vectors.astype(np.float16),
        np.full((3, 2), 0.5, np.float32),
        str(folder),
    )
    torch.save(semantics.get_state(), tmp_path / "state.pt")
    found = SceneSemantics()
    found.set_state(torch.load(tmp_path / "state.pt", weights_only=True))
    device = torch.device("cpu")
    first = semantics.search("red mug", device, None, None)
    second = found.search("red mug", device, None, None)
    assert first.node_ids.tolist() == second.node_ids.tolist()
    assert found.search("mug", device, Level.PART, None).node_ids.tolist() != []
    dense = torch.randn(4, 4, 24)
    torch.testing.assert_close(found.targets(dense), semantics.targets(dense))


def test_a_scene_without_semantics_stays_without_through_a_checkpoint():
    found = SceneSemantics()
    found.set_state(SceneSemantics().get_state())
    assert found.projection is None
    assert found.descriptors is None


def test_values_are_shown_as_colours_around_grey():
    colors = semantic_colors(torch.tensor([[0.0, 2.0], [-9.0, 0.0]]))
    torch.testing.assert_close(colors, torch.tensor([[0.5, 1.0, 0.5], [0.0, 0.5, 0.5]]))
