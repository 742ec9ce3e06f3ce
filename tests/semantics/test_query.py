import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiersplat.levels import Level
from hiersplat.semantics.descriptors import NodeDescriptors
from hiersplat.semantics.query import (
    NodeSearch,
    QueryConfig,
    Ranking,
    node_relevancy,
    relevancy,
    subtree,
)

# Two wholes (0, 1), whole 0 with parts 2 and 3, part 2 with small 4.
IDS = np.arange(5, dtype=np.int32)
PARENTS = np.array([-1, -1, 0, 0, 2], np.int32)
LEVELS = np.array([Level.WHOLE, Level.WHOLE, Level.PART, Level.PART, Level.SMALL], np.int8)
AXES = {"mug": 0, "plant": 1, "handle": 2, "body": 3, "knob": 4, "object": 5, "things": 6}


class AxisEncoder:
    """Embeds every word as an axis of its own."""

    def text_embeddings(self, texts):
        return np.eye(9, dtype=np.float32)[[AXES.get(text, 7) for text in texts]]


@pytest.fixture
def search():
    vectors = np.zeros((5, 2, 9), np.float16)
    vectors[np.arange(5), 0, np.arange(5)] = 1
    weights = np.zeros((5, 2), np.float32)
    weights[:, 0] = 1
    descriptors = NodeDescriptors(IDS, LEVELS, PARENTS, vectors, weights, "axes")
    return NodeSearch(descriptors, AxisEncoder())


@pytest.mark.parametrize(("text", "node"), [("mug", 0), ("plant", 1), ("handle", 2), ("knob", 4)])
def test_the_node_that_means_the_text_is_first(search, text, node):
    ranking = search.search(text)
    assert ranking.best == node
    assert ranking.above(search.config.threshold).tolist() == [node]


def test_a_level_limits_the_answer(search):
    assert sorted(search.search("mug", level=Level.PART).node_ids.tolist()) == [2, 3]


def test_a_subtree_limits_the_answer(search):
    assert sorted(search.search("knob", within=2).node_ids.tolist()) == [2, 4]
    assert search.search("knob", within=1).node_ids.tolist() == [1]
    assert search.search("knob", level=Level.SMALL, within=0).node_ids.tolist() == [4]


def test_a_limit_does_not_change_a_nodes_relevancy(search):
    everywhere = search.search("knob")
    within = search.search("knob", within=2)
    np.testing.assert_allclose(within.of_ids(within.node_ids), everywhere.of_ids(within.node_ids))


def test_an_unknown_node_is_named(search):
    with pytest.raises(ValueError, match="no node 9"):
        search.search("knob", within=9)


def test_nothing_to_choose_from_is_said(search):
    with pytest.raises(ValueError, match="no node to choose"):
        _ = search.search("knob", level=Level.SMALL, within=1).best


def test_a_text_the_encoder_of_another_model_embeds_is_refused(search):
    class Other:
        def text_embeddings(self, texts):
            return np.ones((len(texts), 3), np.float32)

    with pytest.raises(ValueError, match="use the model the run was trained with"):
        NodeSearch(search.descriptors, Other())


def test_a_node_without_descriptors_has_no_relevancy():
    vectors, weights = np.zeros((1, 2, 3)), np.zeros((1, 2))
    assert node_relevancy(vectors, weights, np.ones(3), np.ones((1, 3))).tolist() == [0]


def test_relevancy_is_the_smallest_softmax_share_over_the_negatives():
    rng = np.random.default_rng(0)
    vectors, text, negatives = rng.normal(size=(6, 4)), rng.normal(size=4), rng.normal(size=(3, 4))
    shares = [
        np.exp(10 * vectors @ text)
        / (np.exp(10 * vectors @ text) + np.exp(10 * vectors @ negative))
        for negative in negatives
    ]
    np.testing.assert_allclose(relevancy(vectors, text, negatives), np.min(shares, axis=0))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 9999), temperature=st.floats(0.1, 50))
def test_relevancy_lies_between_0_and_1_and_at_most_half_for_a_negative(seed, temperature):
    rng = np.random.default_rng(seed)
    vectors, negatives = rng.normal(size=(7, 5)), rng.normal(size=(2, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    values = relevancy(vectors, rng.normal(size=5), negatives, temperature)
    assert ((values >= 0) & (values <= 1)).all()
    assert (relevancy(vectors, negatives[0], negatives, temperature) < 0.5 + 1e-9).all()


def test_relevancy_of_ids_is_0_for_what_was_not_asked_about():
    ranking = Ranking(np.array([4, 1]), np.array([0.9, 0.2], np.float32))
    values = ranking.of_ids(np.array([[-1, 0], [1, 4], [7, 4]]))
    np.testing.assert_allclose(values, [[0, 0], [0.2, 0.9], [0, 0.9]])
    empty = Ranking(np.zeros(0, np.int32), np.zeros(0, np.float32))
    assert empty.of_ids(np.array([0, 1])).tolist() == [0, 0]


def test_subtree_holds_the_root_and_everything_below_it():
    assert subtree(IDS, PARENTS, 0).tolist() == [True, False, True, True, True]
    assert subtree(IDS, PARENTS, 4).tolist() == [False, False, False, False, True]


def test_the_threshold_and_negatives_are_those_of_lerf():
    config = QueryConfig()
    assert config.negatives == ("object", "things", "stuff", "texture")
    assert (config.temperature, config.threshold) == (10.0, 0.5)
