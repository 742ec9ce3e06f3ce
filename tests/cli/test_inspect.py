import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plyfile import PlyData

from hiersplat.cli import inspect as inspect_cli
from hiersplat.hierarchy.clouds import node_boxes, node_cloud
from hiersplat.hierarchy.run import load_run, save_hierarchy
from hiersplat.hierarchy.tree import Node, SceneTree
from hiersplat.levels import Level


def run_program(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["hiersplat-inspect", *map(str, arguments)])
    inspect_cli.main()


def expect_error(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *arguments: object,
) -> str:
    """Run the program, expect status 2 and one line, and return the line."""
    with pytest.raises(SystemExit) as error:
        run_program(monkeypatch, *arguments)
    assert error.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "Traceback" not in line
    return line


def merge_blocks_2_and_3(index: int, labels: np.ndarray) -> np.ndarray:
    """In three of four views one mask covers smalls 8 and 9."""
    if index < 3:
        labels[Level.SMALL][labels[Level.SMALL] == 9] = 8
    return labels


def test_inspection_writes_what_it_promises(run_folder: Path, monkeypatch: pytest.MonkeyPatch):
    run_program(monkeypatch, run_folder)
    out = run_folder / "inspection"
    expected = {"report.json"}
    for level in ("small", "part", "whole"):
        expected |= {f"points_{level}.ply", f"boxes_{level}.ply", f"boxes_{level}.json"}
        expected.add(f"sheet_{level}.png")
    assert {path.name for path in out.iterdir()} == expected
    report = json.loads((out / "report.json").read_text())
    for level in ("small", "part", "whole"):
        assert report["levels"][level]["agreement"] == 1.0
        assert report["levels"][level]["pixel_agreement"] == 1.0
        # At the edges of blocks views disagree by a pixel, in the masks as in the rendering.
        assert report["levels"][level]["view_consistency_rendered"]["agreement"] > 0.95
        assert report["levels"][level]["view_consistency_rendered"]["chance"] < 0.6
    assert report["suggestions"] == []


def test_likely_merge_is_printed_and_reported(
    make_run: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    run = make_run(merge_blocks_2_and_3)
    run_program(monkeypatch, run, "--level", "small")
    assert "3 of 4 views draw as one 8 and 9" in capsys.readouterr().out
    report = json.loads((run / "inspection" / "report.json").read_text())
    assert report["suggestions"][0]["nodes"] == [8, 9]
    assert report["levels"]["part"]["agreement"] == 1.0
    assert {path.name for path in (run / "inspection").iterdir()} == {
        "report.json",
        "points_small.ply",
        "boxes_small.ply",
        "boxes_small.json",
        "sheet_small.png",
    }


def test_cloud_carries_node_ids_and_agreement(
    make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    run = make_run(merge_blocks_2_and_3)
    run_program(monkeypatch, run, "--level", "small")
    vertices = PlyData.read(run / "inspection" / "points_small.ply")["vertex"]
    tree = load_run(run).tree
    assert sorted(set(vertices["node_id"])) == tree.level_ids(Level.SMALL).tolist()
    # One mask over two nodes: one of them disagrees in three of four views, others never do.
    agreement = {
        node: np.nanmean(vertices["agreement"][vertices["node_id"] == node])
        for node in tree.level_ids(Level.SMALL)
    }
    assert min(agreement[8], agreement[9]) < 0.7
    assert agreement[12] > 0.95
    colors = {
        (r, g, b) for r, g, b in zip(*(vertices[c] for c in ("red", "green", "blue")), strict=True)
    }
    assert len(colors) == 8


def test_sheet_is_red_where_views_disagree(
    make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    run = make_run(merge_blocks_2_and_3)
    run_program(monkeypatch, run)
    for level, has_red in (("small", True), ("part", False)):
        with Image.open(run / "inspection" / f"sheet_{level}.png") as image:
            sheet = np.asarray(image).astype(int)
        column = sheet[:, -260:]  # agreement is the last of four columns
        red = (column[..., 0] > 150) & (column[..., 1] < 90) & (column[..., 2] < 90)
        assert red.any() == has_red


def test_one_node_is_shown_with_its_relatives_and_views(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    run_program(monkeypatch, run_folder, "--node", 3, "--out", run_folder / "one")
    text = capsys.readouterr().out
    assert "Node 3" in text
    assert "ancestors: 0" in text
    assert "children:  8, 9" in text
    assert (run_folder / "one" / "sheet_node_3.png").is_file()
    vertices = PlyData.read(run_folder / "one" / "points_node_3.ply")["vertex"]
    assert set(vertices["node_id"]) == {3}


def test_boxes_enclose_the_nodes(run_folder: Path, monkeypatch: pytest.MonkeyPatch):
    import open3d

    run_program(monkeypatch, run_folder, "--level", "whole")
    boxes = json.loads((run_folder / "inspection" / "boxes_whole.json").read_text())
    run = load_run(run_folder)
    for node_id in (0, 1):
        points = run.splats.means.numpy()[run.tree.gaussians_of(node_id)]
        np.testing.assert_allclose(boxes[str(node_id)]["min"], points.min(axis=0), rtol=1e-6)
        np.testing.assert_allclose(boxes[str(node_id)]["max"], points.max(axis=0), rtol=1e-6)
    lines = open3d.io.read_line_set(run_folder / "inspection" / "boxes_whole.ply")
    assert (len(lines.points), len(lines.lines)) == (16, 24)


def test_large_clouds_are_down_sampled_node_by_node_and_it_says_so(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    run_program(monkeypatch, run_folder, "--max-points", 100, "--level", "small")
    assert "down-sampled to" in capsys.readouterr().out
    run = load_run(run_folder)
    agreement = np.ones(len(run.splats), np.float32)
    whole = node_cloud(run.splats, run.tree, Level.SMALL, agreement, 10**6)
    assert whole.voxel_size is None
    reduced = node_cloud(run.splats, run.tree, Level.SMALL, agreement, 100)
    assert reduced.voxel_size is not None
    assert 8 <= len(reduced.points) <= 100
    # Ids are those of whole Gaussians, and points stay inside their nodes.
    boxes = node_boxes(whole)
    for point, node_id in zip(reduced.points, reduced.node_ids, strict=True):
        low, high = boxes[int(node_id)]
        assert (point >= np.array(low) - 1e-6).all()
        assert (point <= np.array(high) + 1e-6).all()


def test_large_views_are_reduced_and_it_says_so(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    run_program(monkeypatch, run_folder, "--max-size", 24, "--level", "whole")
    assert "reduced from 48 to 24 pixels" in capsys.readouterr().out
    report = json.loads((run_folder / "inspection" / "report.json").read_text())
    assert report["levels"]["whole"]["agreement"] > 0.85


def test_missing_mask_file_is_said_and_left_out(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (run_folder / "cache" / "view_1.npz").unlink()
    run_program(monkeypatch, run_folder, "--level", "part")
    assert "1 views left out" in capsys.readouterr().out
    report = json.loads((run_folder / "inspection" / "report.json").read_text())
    assert report["views"] == ["view_0", "view_2", "view_3"]


def test_bad_input_is_one_line_and_writes_nothing(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    cases = [
        ((run_folder / "nowhere",), "no such run"),
        ((run_folder, "--node", 99), "no node 99"),
        ((run_folder, "--node", 3, "--level", "small"), "node 3 is a part"),
        ((run_folder, "--max-size", 3), "--max-size 3"),
        ((run_folder, "--max-views", 0), "--max-views 0"),
    ]
    for arguments, message in cases:
        assert message in expect_error(monkeypatch, capsys, *arguments)
    assert not (run_folder / "inspection").exists()


def test_masks_of_another_size_do_not_match_the_run(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    path = run_folder / "hierarchy" / "views.json"
    table = json.loads(path.read_text())
    table["views"][0]["width"] = 40
    path.write_text(json.dumps(table))
    line = expect_error(monkeypatch, capsys, run_folder)
    assert "view_0" in line
    assert "does not match the run" in line
    assert not (run_folder / "inspection").exists()


def test_spoiled_masks_are_named(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (run_folder / "cache" / "view_2.npz").write_bytes(b"spoiled")
    assert "view_2.npz" in expect_error(monkeypatch, capsys, run_folder)


def test_one_view_alone_is_refused(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for index in (1, 2, 3):
        (run_folder / "cache" / f"view_{index}.npz").unlink()
    line = expect_error(monkeypatch, capsys, run_folder)
    assert "needs at least two" in line
    assert "view_1.npz" in line


def test_empty_level_is_refused(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    run = load_run(run_folder)
    ids = np.full((3, len(run.splats)), -1, np.int32)
    save_hierarchy(run.path / "hierarchy", SceneTree((Node(0, Level.WHOLE, -1),), ids), run.views)
    line = expect_error(monkeypatch, capsys, run_folder, "--level", "part")
    assert "the level part is empty" in line


def test_show_without_display_is_refused_before_any_work(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert "needs a display" in expect_error(monkeypatch, capsys, run_folder, "--show")
    assert not (run_folder / "inspection").exists()


class FakeViewer:
    """Stands for Open3D's window, which needs a display."""

    opens = True
    shown: list[object] = []

    def create_window(self, title: str) -> bool:
        return self.opens

    def add_geometry(self, geometry: object) -> None:
        self.shown.append(geometry)

    def run(self) -> None:
        pass

    def destroy_window(self) -> None:
        pass


def test_show_opens_clouds_and_boxes_after_the_files_are_written(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import open3d

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(open3d.visualization, "Visualizer", FakeViewer)
    monkeypatch.setattr(FakeViewer, "shown", [])
    run_program(monkeypatch, run_folder, "--show", "--level", "part")
    assert [type(shape).__name__ for shape in FakeViewer.shown] == ["PointCloud", "LineSet"]
    monkeypatch.setattr(FakeViewer, "opens", False)
    assert "no window can be opened" in expect_error(
        monkeypatch, capsys, run_folder, "--show", "--level", "part"
    )
    assert (run_folder / "inspection" / "points_part.ply").is_file()


def test_help_explains_without_loading_heavy_libraries():
    code = (
        "import sys; from hiersplat.cli.inspect import main\n"
        "try: main()\n"
        "finally: print([m for m in ('torch', 'open3d', 'numba') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=False
    )
    assert "disagreeing" in done.stdout
    assert done.stdout.rstrip().endswith("[]")
