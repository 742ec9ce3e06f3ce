"""The programs users call, end to end on a scene of 64 x 64 pixels."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hiersplat.hierarchy.run import load_run
from hiersplat.levels import UNLABELLED, Level

pytestmark = pytest.mark.slow

LEVEL_OUTPUTS = [f"level_{name}" for name in ("small", "part", "whole", "selected")]


def checkpoint(folder: Path) -> dict:
    """The newest checkpoint of a run, read as safely as every user reads it."""
    import hiersplat.plugin.config  # noqa: F401  (registers what checkpoints may hold)

    path = sorted((folder / "nerfstudio_models").glob("step-*.ckpt"))[-1]
    return torch.load(path, map_location="cpu", weights_only=True)


def test_every_gaussian_of_a_finished_run_has_nested_ids(finished_run):
    run = load_run(finished_run.folder)
    ids = run.tree.node_ids
    assert ids.shape == (3, len(run.splats))
    assert (ids != UNLABELLED).mean() > 0.95
    # SceneTree refuses ids that are not nested, so only emptiness is left to check.
    for level in Level:
        assert len(run.tree.level_ids(level)) >= 5
    counts = [len(run.tree.level_ids(level)) for level in Level]
    assert counts == sorted(counts, reverse=True)


def test_ids_and_features_are_in_the_checkpoint(finished_run):
    state = checkpoint(finished_run.folder)["pipeline"]
    count = len(state["_model.gauss_params.means"])
    assert state["_model.gauss_params.hierarchy_features"].shape == (count, 24)
    assert state["_model.gauss_params.hierarchy_features"].abs().sum() > 0
    assert state["_model._extra_state"]["node_ids"].shape == (3, count)
    assert json.loads(state["_model._extra_state"]["tree"])["nodes"]


def test_training_says_where_to_look_and_draws_a_sheet(finished_run):
    assert "ns-viewer --load-config" in finished_run.output.replace("\n", "")
    assert "CLIPSeg features are distilled" in finished_run.output
    sheet = np.asarray(Image.open(finished_run.folder / "hierarchy" / "sheet.png"))
    assert sheet.shape[0] > 500
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 100
    summary = json.loads((finished_run.folder / "hierarchy" / "summary.json").read_text())
    assert summary["views"] == 24
    assert set(summary["seconds"]) >= {"masks and features", "geometry", "association"}


def test_a_second_run_segments_nothing_again(finished_run, run_program, must_succeed):
    made = {path: path.stat().st_mtime_ns for path in finished_run.data.glob(".hiersplat/*/*.npz")}
    assert len(made) == 2 * 24
    output = must_succeed(
        run_program(
            *("ns-train", "hiersplat-quickstart", "--data", finished_run.data),
            *("--max-num-iterations", 2, "--timestamp", "again"),
            *("--pipeline.datamanager.segmentation.segmenter", "labels"),
            *("--pipeline.datamanager.features.features", "clipseg"),
            *("--pipeline.datamanager.features.checkpoint", "micro-clipseg"),
            cwd=finished_run.home,
        )
    )
    assert "segmenting" not in output
    assert "encoding" not in output
    after = {path: path.stat().st_mtime_ns for path in finished_run.data.glob(".hiersplat/*/*.npz")}
    assert made == after


def test_evaluation_prints_the_hierarchy_figures(finished_run, run_program, must_succeed, tmp_path):
    out = finished_run.folder / "eval.json"
    must_succeed(
        run_program(
            *("ns-eval", "--load-config", finished_run.config, "--output-path", out),
            *("--render-output-path", tmp_path / "pictures"),
            cwd=finished_run.home,
        )
    )
    figures = json.loads(out.read_text())["results"]
    assert figures["psnr"] > 15
    assert figures["num_views"] == 8
    assert figures["miou_whole"] > 0.4
    assert "lpips" not in figures
    names = {path.name.rsplit("_", 1)[0] for path in (tmp_path / "pictures").iterdir()}
    assert names == {"eval_img", "eval_levels"}
    report = must_succeed(run_program("hiersplat-report", finished_run.folder, cwd=tmp_path))
    assert f"{figures['psnr']:.2f} dB" in report
    assert "sheet.png" in report
    as_json = must_succeed(
        run_program("hiersplat-report", finished_run.folder, "--json", cwd=tmp_path)
    )
    assert json.loads(as_json)["figures"]["psnr"] == figures["psnr"]


def test_levels_are_rendered_by_ns_render(finished_run, run_program, must_succeed, tmp_path):
    must_succeed(
        run_program(
            *("ns-render", "dataset", "--load-config", finished_run.config),
            *("--output-path", tmp_path, "--split", "test"),
            *("--rendered-output-names", "rgb", *LEVEL_OUTPUTS),
            cwd=finished_run.home,
        )
    )
    for name in ("rgb", *LEVEL_OUTPUTS):
        pictures = sorted((tmp_path / "test" / name).iterdir())
        assert len(pictures) == 8
        assert np.asarray(Image.open(pictures[0])).std() > 5


def test_gaussians_are_exported_by_ns_export(finished_run, run_program, must_succeed, tmp_path):
    must_succeed(
        run_program(
            *("ns-export", "gaussian-splat", "--load-config", finished_run.config),
            *("--output-dir", tmp_path),
            cwd=finished_run.home,
        )
    )
    from hiersplat.gaussians.ply import read_ply

    exported = read_ply(tmp_path / "splat.ply")
    assert 0 < len(exported) <= len(load_run(finished_run.folder).splats)


def test_resuming_goes_on_training_and_rebuilds_the_hierarchy(
    finished_run, run_program, must_succeed
):
    output = must_succeed(
        run_program(
            *("ns-train", "hiersplat-quickstart", "--data", finished_run.data),
            *("--load-dir", finished_run.folder / "nerfstudio_models"),
            *("--max-num-iterations", 40, "--timestamp", "resumed"),
            *("--pipeline.datamanager.segmentation.segmenter", "labels"),
            cwd=finished_run.home,
        )
    )
    assert "Training without semantic features" in output
    folder = finished_run.folder.with_name("resumed")
    before, after = checkpoint(finished_run.folder), checkpoint(folder)
    assert after["step"] == before["step"] + 40
    for name in ("means", "features_dc", "opacities"):
        old = before["pipeline"][f"_model.gauss_params.{name}"]
        new = after["pipeline"][f"_model.gauss_params.{name}"]
        assert old.shape != new.shape or not torch.equal(old, new)
    assert len(load_run(folder).tree) > 0


def test_the_hierarchy_is_built_on_a_run_or_ply_that_is_already_trained(
    finished_run, run_program, must_succeed
):
    must_succeed(
        run_program(
            *("ns-train", "hiersplat-quickstart", "--data", finished_run.data),
            *("--pipeline.model.geometry", finished_run.folder, "--timestamp", "stage2"),
            *("--pipeline.model.hierarchy-steps", 10),
            *("--pipeline.datamanager.segmentation.segmenter", "labels"),
            cwd=finished_run.home,
        )
    )
    before = load_run(finished_run.folder)
    after = load_run(finished_run.folder.with_name("stage2"))
    torch.testing.assert_close(after.splats.means, before.splats.means, rtol=0, atol=0)
    torch.testing.assert_close(after.splats.sh, before.splats.sh, rtol=0, atol=0)
    assert len(after.tree) > 0


def test_training_walks_the_whole_way_with_sam2_and_clipseg(
    four_views, run_program, must_succeed, tmp_path
):
    from hiersplat.segmentation.sam2_model import random_model, save_checkpoint
    from hiersplat.semantics.descriptors import DESCRIPTORS_FILE, NodeDescriptors
    from hiersplat.semantics.micro_model import write_random_clipseg

    weights = tmp_path / "random_tiny.pt"
    save_checkpoint(random_model("tiny", seed=0), weights)
    write_random_clipseg(tmp_path / "clipseg", ["mug", "red", "object", "things"])
    sam2 = "--pipeline.datamanager.segmentation.sam2"
    output = must_succeed(
        run_program(
            *("ns-train", "hiersplat", "--data", four_views, "--vis", "tensorboard"),
            *("--max-num-iterations", 4, "--timestamp", "sam2"),
            *("--pipeline.datamanager.features.checkpoint", tmp_path / "clipseg"),
            *(f"{sam2}.model-size", "tiny", f"{sam2}.checkpoint", weights),
            *(f"{sam2}.points-per-side", 2, f"{sam2}.stability-score-thresh", 0.0),
            *(f"{sam2}.pred-iou-thresh", 0.0),
            cwd=tmp_path,
        )
    )
    assert "segmenting (sam2)" in output
    assert "encoding (CLIPSeg)" in output
    folder = tmp_path / "outputs" / four_views.name / "hiersplat" / "sam2"
    tree = load_run(folder).tree
    descriptors = NodeDescriptors.load(folder / "hierarchy" / DESCRIPTORS_FILE)
    assert descriptors.node_ids.tolist() == [node.id for node in tree.nodes]
    assert "CLIPSeg features are distilled" in output
    state = checkpoint(folder)["pipeline"]
    values = state["_model.gauss_params.semantic_features"]
    assert values.shape == (len(state["_model.gauss_params.means"]), 8)
    assert values.std() > 0.1
    kept = state["_model._extra_state"]["semantics"]
    assert kept["descriptors"]["node_ids"].tolist() == descriptors.node_ids.tolist()
    must_succeed(
        run_program(
            *("ns-render", "dataset", "--load-config", folder / "config.yml"),
            *("--output-path", tmp_path / "pictures", "--split", "test"),
            *("--rendered-output-names", "semantics", "relevancy"),
            cwd=tmp_path,
        )
    )
    # A single held-out view is rendered without a folder of its own.
    picture = tmp_path / "pictures" / "test" / "semantics.jpg"
    assert np.asarray(Image.open(picture)).std() > 5


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda data: (data / "transforms.json").unlink(), "transforms.json: missing"),
        (lambda data: next((data / "images").iterdir()).unlink(), ".png: missing"),
        (lambda data: next((data / "images").iterdir()).write_bytes(b"x"), "not a readable image"),
    ],
)
def test_bad_data_ends_in_one_line_that_names_the_file(
    copied_scene, run_program, tmp_path, spoil, expected
):
    spoil(copied_scene)
    result = run_program(
        *("ns-train", "hiersplat-quickstart", "--data", copied_scene), cwd=tmp_path
    )
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert expected in errors[0]


def test_missing_weights_say_where_to_put_them(finished_run, run_program, tmp_path):
    result = run_program(
        *("ns-train", "hiersplat", "--data", finished_run.data, "--vis", "tensorboard"),
        cwd=tmp_path,
    )
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "sam2.1_hiera_large.pt" in errors[0]
    assert "hiersplat-checkpoints fetch large" in errors[0]
