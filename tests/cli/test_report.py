"""What `hiersplat-report` prints of a run, and what it says where there is nothing to print."""

import json
import os
import sys
from pathlib import Path

import pytest

from hiersplat.cli import report

SUMMARY = {
    "nodes": {"small": 9, "part": 5, "whole": 3},
    "seconds": {"geometry": 12.5},
    "gaussians": 1234,
    "views": 4,
    "peak_memory_mb": 900.0,
    "cache_bytes_per_view": 9000,
    "segmenter": "labels",
    "features": "none",
}
FIGURES = {"psnr": 27.125, "ssim": 0.9} | {
    f"{figure}_{level}": 0.5
    for figure in ("miou", "miou_any", "recall50", "pq")
    for level in ("small", "part", "whole")
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs" / "run"
    (folder / "hierarchy").mkdir(parents=True)
    (folder / "config.yml").touch()
    (folder / "hierarchy" / "summary.json").write_text(json.dumps(SUMMARY))
    (folder / report.EVALUATION).write_text(json.dumps({"results": FIGURES}))
    return folder


def run_program(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["hiersplat-report", *map(str, arguments)])
    report.main()


def error_of(monkeypatch, capsys, *arguments: object) -> str:
    with pytest.raises(SystemExit) as error:
        run_program(monkeypatch, *arguments)
    assert error.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def test_figures_seconds_and_places_are_printed(run, monkeypatch, capsys):
    run_program(monkeypatch, run)
    printed = capsys.readouterr().out
    for expected in ("27.12 dB", "12.5 s", "1,234", "9.0 kB", "sheet.png", "ns-viewer"):
        assert expected in printed


def test_a_run_that_can_be_asked_in_words_says_how(run, monkeypatch, capsys):
    run_program(monkeypatch, run)
    assert "hiersplat-query" not in capsys.readouterr().out
    (run / "hierarchy" / "descriptors.npz").touch()
    run_program(monkeypatch, run)
    assert "hiersplat-query" in capsys.readouterr().out


def test_without_truth_levels_are_not_judged(run, monkeypatch, capsys):
    (run / report.EVALUATION).write_text(json.dumps({"results": {"psnr": 20.0, "ssim": 0.5}}))
    run_program(monkeypatch, run)
    printed = capsys.readouterr().out
    assert "20.00 dB" in printed
    assert "no truth labels" in printed


def test_newest_run_below_a_folder_counts(run, monkeypatch, capsys):
    older = run.with_name("older")
    (older / "hierarchy").mkdir(parents=True)
    (older / "config.yml").touch()
    summary = older / "hierarchy" / "summary.json"
    summary.write_text(json.dumps(SUMMARY))
    os.utime(summary, (1, 1))
    run_program(monkeypatch, run.parent, "--json")
    assert json.loads(capsys.readouterr().out)["run"] == str(run)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "summary.json: missing"),
        ("{", "summary.json: not valid JSON"),
        ("[]", "summary.json: holds no table"),
        ("{}", "summary.json: has no 'nodes'"),
    ],
)
def test_a_summary_that_is_missing_or_spoiled_is_named(
    run, monkeypatch, capsys, content: str | None, expected: str
):
    summary = run / "hierarchy" / "summary.json"
    if content is None:
        summary.unlink()
    else:
        summary.write_text(content)
    assert expected in error_of(monkeypatch, capsys, run)


def test_a_folder_without_runs_is_named(tmp_path, monkeypatch, capsys):
    assert f"{tmp_path}: no finished run" in error_of(monkeypatch, capsys, tmp_path)
    assert "nowhere: no such folder" in error_of(monkeypatch, capsys, tmp_path / "nowhere")
