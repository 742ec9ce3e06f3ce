import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData

from hiersplat.cli import export as export_cli
from hiersplat.gaussians.ply import read_ply
from hiersplat.hierarchy.export import export_run
from hiersplat.hierarchy.run import load_run, save_hierarchy
from hiersplat.hierarchy.tree import Node, SceneTree
from hiersplat.levels import Level


def run_program(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["hiersplat-export", *map(str, arguments)])
    export_cli.main()


def expect_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> str:
    with pytest.raises(SystemExit) as error:
        run_program(monkeypatch, *arguments)
    assert error.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def test_export_is_a_3dgs_file_with_labels_of_all_levels(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    run_program(monkeypatch, run_folder)
    run = load_run(run_folder)
    path = run_folder / "export" / "gaussians.ply"
    splats = read_ply(path)
    assert torch.equal(splats.means, run.splats.means)
    assert torch.equal(splats.logit_opacities, run.splats.logit_opacities)
    vertices = PlyData.read(path)["vertex"]
    for level in Level:
        assert (vertices[f"node_{level.title}"] == run.tree.node_ids[level]).all()
    assert not (run_folder / "export" / "nodes").exists()


def test_tree_of_an_export_rebuilds_with_the_labels_of_its_ply(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    run_program(monkeypatch, run_folder)
    vertices = PlyData.read(run_folder / "export" / "gaussians.ply")["vertex"]
    ids = np.stack([vertices[f"node_{level.title}"] for level in Level])
    tree = SceneTree.from_json((run_folder / "export" / "tree.json").read_text(), ids)
    assert tree.nodes == load_run(run_folder).tree.nodes


def test_nodes_of_a_level_become_files_that_make_up_the_whole(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    run_program(monkeypatch, run_folder, "--nodes", "part", "--out", run_folder / "out")
    assert "4 files" in capsys.readouterr().out
    files = sorted((run_folder / "out" / "nodes").iterdir())
    assert [path.name for path in files] == [f"part_{i}.ply" for i in (2, 3, 4, 5)]
    run = load_run(run_folder)
    found = torch.cat([read_ply(path).means for path in files])
    assert len(found) == len(run.splats)
    own = PlyData.read(files[0])["vertex"]
    assert set(own["node_part"]) == {2}
    assert set(own["node_small"]) == {6, 7}


def test_names_of_nodes_are_safe_in_file_names(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = load_run(run_folder)
    tree = run.tree.with_names({6: "../../lid of the pot/ä"})
    save_hierarchy(run_folder / "hierarchy", tree, run.views)
    run_program(monkeypatch, run_folder, "--nodes", "small", "--out", tmp_path / "out")
    names = {path.name for path in (tmp_path / "out" / "nodes").iterdir()}
    assert "small_6_lid_of_the_pot.ply" in names
    assert "small_7_block_1.ply" in names


def test_nothing_is_overwritten_without_being_asked(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    out = run_folder / "export"
    out.mkdir()
    (out / "tree.json").write_text("mine")
    line = expect_error(monkeypatch, capsys, run_folder)
    assert "tree.json: exists" in line
    assert "--overwrite" in line
    assert [path.name for path in out.iterdir()] == ["tree.json"]
    assert (out / "tree.json").read_text() == "mine"
    run_program(monkeypatch, run_folder, "--overwrite")
    assert json.loads((out / "tree.json").read_text())["nodes"]


def test_bad_input_is_one_line_and_writes_nothing(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    assert "no such run" in expect_error(monkeypatch, capsys, tmp_path / "nowhere")
    assert "not a finished run" in expect_error(monkeypatch, capsys, tmp_path)
    (tmp_path / "file").write_text("no folder")
    out = tmp_path / "file" / "out"
    assert "file" in expect_error(monkeypatch, capsys, run_folder, "--out", out)
    assert not (run_folder / "export").exists()


def test_empty_level_is_refused_and_empty_nodes_are_left_out(run_folder: Path, tmp_path: Path):
    run = load_run(run_folder)
    ids = np.full((3, len(run.splats)), -1, np.int32)
    save_hierarchy(run.path / "hierarchy", SceneTree((Node(0, Level.WHOLE, -1),), ids), run.views)
    bare = load_run(run_folder)
    with pytest.raises(ValueError, match="the level part is empty"):
        export_run(bare, tmp_path / "out", Level.PART)
    assert not (tmp_path / "out").exists()
    written = export_run(bare, tmp_path / "out", Level.WHOLE)
    assert [path.name for path in written] == ["gaussians.ply", "tree.json"]


def test_progress_counts_every_file(run_folder: Path, tmp_path: Path):
    seen: list[tuple[int, int]] = []
    export_run(
        load_run(run_folder),
        tmp_path / "out",
        Level.WHOLE,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (4, 4)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
