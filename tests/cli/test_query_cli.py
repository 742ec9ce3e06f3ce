"""``hiersplat-query`` on a small run, with a random CLIPSeg in place of one that knows things."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hiersplat.cli.query import main
from hiersplat.gaussians.ply import read_ply
from hiersplat.hierarchy.describing import describe_run
from hiersplat.hierarchy.run import load_run
from hiersplat.semantics.clipseg import ClipSegEncoder
from hiersplat.semantics.config import FeaturesConfig
from hiersplat.semantics.descriptors import NodeDescriptors
from hiersplat.semantics.micro_model import write_random_clipseg

WORDS = ["the", "green", "block", "object", "things", "stuff", "texture"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_clipseg(tmp_path_factory.mktemp("weights") / "clipseg", WORDS)


@pytest.fixture
def program(monkeypatch, capsys):
    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hiersplat-query", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        status = 0
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def described(run_folder, weights):
    """The run, with descriptors that make block 3 of the first tower, and its tower, the answer."""
    run = load_run(run_folder)
    encoder = ClipSegEncoder(FeaturesConfig(checkpoint=str(weights)))
    found = describe_run(run, encoder)
    text = encoder.text_embeddings(["green block"])[0]
    vectors = found.vectors.astype(np.float32)
    vectors -= (vectors @ text)[..., None] * text
    for node in (0, 9):
        vectors[found.node_ids == node, 0] = text * (0.9 if node == 9 else 0.6)
    changed = NodeDescriptors(
        found.node_ids,
        found.levels,
        found.parents,
        vectors.astype(np.float16),
        np.eye(1, 3, dtype=np.float32).repeat(len(found), axis=0),
        found.checkpoint,
    )
    changed.save(run_folder / "hierarchy" / "descriptors.npz")
    return run_folder


def test_every_node_of_a_run_is_described_by_the_masks_that_show_it(run_folder, weights):
    encoder = ClipSegEncoder(FeaturesConfig(checkpoint=str(weights)))
    seen = []
    found = describe_run(load_run(run_folder), encoder, lambda done, total: seen.append(done))
    assert seen == [1, 2, 3, 4]
    assert found.node_ids.tolist() == list(range(14))
    assert found.levels.tolist() == [2, 2, 1, 1, 1, 1] + [0] * 8
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, atol=1e-6)
    lengths = np.linalg.norm(found.vectors.astype(np.float32), axis=2)
    np.testing.assert_allclose(lengths[found.weights > 0], 1, atol=1e-3)


def test_the_best_node_heads_the_table_and_its_gaussians_are_written(described, program, tmp_path):
    out = tmp_path / "out"
    status, printed, _ = program(described, "green block", "--out", out)
    assert status == 0
    rows = [line for line in printed.splitlines() if "│" in line]
    assert [cell.strip() for cell in rows[0].split("│")][1:4] == ["9", "small", "block 3"]
    run = load_run(described)
    selected = read_ply(out / "selected.ply")
    expected = run.splats.means[run.tree.gaussians_of(9)]
    np.testing.assert_allclose(selected.means.numpy(), expected.numpy())
    sheet = np.asarray(Image.open(out / "sheet.png"))
    assert sheet.shape[2] == 3
    assert sheet.std() > 10


def test_a_level_limits_the_answer(described, program, tmp_path):
    out = tmp_path / "out"
    status, _, _ = program(described, "green block", "--level", "whole", "--out", out)
    assert status == 0
    run = load_run(described)
    assert len(read_ply(out / "selected.ply").means) == run.tree.node(0).num_gaussians


def test_a_subtree_limits_the_answer_and_nothing_found_is_said(described, program, tmp_path):
    out = tmp_path / "out"
    status, printed, _ = program(described, "green block", "--within", "1", "--out", out)
    assert status == 0
    assert "Nothing is found" in printed
    assert (out / "sheet.png").is_file()
    assert not (out / "selected.ply").exists()


def test_results_lie_with_the_run_under_the_text(described, program):
    status, _, _ = program(described, "The GREEN block")
    assert status == 0
    assert (described / "queries" / "the-green-block" / "sheet.png").is_file()


def test_a_run_without_descriptors_says_how_to_get_them_and_describe_does_it(
    run_folder, weights, program, tmp_path
):
    status, _, err = program(run_folder, "block")
    assert status == 2
    assert "--describe" in err
    assert err.count("\n") == 1
    status, _, _ = program(run_folder, "block", "--describe", weights, "--out", tmp_path / "a")
    assert status == 0
    assert (run_folder / "hierarchy" / "descriptors.npz").is_file()
    status, _, _ = program(run_folder, "block", "--out", tmp_path / "b")
    assert status == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            [
                "",
            ],
            "empty",
        ),
        (["block " * 2000], "too long"),
        (["дом"], "does not know"),
        (["block", "--within", "99"], "no node 99"),
        (["block", "--level", "small", "--within", "x"], "x"),
        (["block", "--top", "0"], "--top 0"),
        (["block", "--describe", "/nowhere/at-all"], "no such folder"),
    ],
)
def test_bad_input_gets_status_2_and_says_why(described, program, arguments, said):
    status, _, err = program(described, *arguments)
    assert status == 2
    assert said in err


def test_no_run_is_said(program, tmp_path):
    status, _, err = program(tmp_path / "nothing", "block")
    assert status == 2
    assert "no such run" in err


def test_descriptors_of_another_tree_are_refused(described, program):
    path = described / "hierarchy" / "descriptors.npz"
    found = NodeDescriptors.load(path)
    NodeDescriptors(
        found.node_ids[1:],
        found.levels[1:],
        found.parents[1:],
        found.vectors[1:],
        found.weights[1:],
        found.checkpoint,
    ).save(path)
    status, _, err = program(described, "block")
    assert status == 2
    assert "another tree" in err


def test_the_note_of_a_model_is_in_the_output(described, weights, program):
    card = weights / "hiersplat.json"
    card.write_text('{"note": "knows only generated scenes"}')
    try:
        _, printed, _ = program(described, "block")
    finally:
        card.unlink()
    assert "knows only generated scenes" in printed


def test_help_answers_without_heavy_imports(program):
    status, printed, _ = program("--help")
    assert status == 0
    for word in ("--level", "--within", "--describe", "selected.ply", "relevancy"):
        assert word in printed
