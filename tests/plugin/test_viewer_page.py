"""The viewer's panels, driven in a real browser."""

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
BROWSER_OPTIONS = [
    "--headless=new",
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--no-first-run",
]
WAIT_S = 180
"""A machine with two busy cores needs minutes for what takes seconds otherwise."""


@pytest.fixture
def viewer_address(finished_run) -> Iterator[str]:
    """Address of ns-viewer showing the finished run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = finished_run.home / "viewer.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [
                str(Path(sys.executable).parent / "ns-viewer"),
                *("--load-config", str(finished_run.config)),
                *("--viewer.websocket-port", str(port)),
            ],
            cwd=finished_run.home,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}", server, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(timeout=30)


def _wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()[-4000:]
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"ns-viewer did not answer in {WAIT_S} s:\n{log.read_text()[-4000:]}")


def _input_behind(page, label: str):
    """The input of the text box or drop-down list behind a label."""
    box = page.get_by_text(label, exact=True).first.locator("xpath=ancestor::*[.//input][1]//input")
    return box.first


def _choose(page, label: str, option: str) -> None:
    """Choose an option of the drop-down list behind a label."""
    _input_behind(page, label).click()
    page.get_by_role("option", name=option, exact=True).click()


def _settled_picture(page) -> np.ndarray:
    """The canvas once two shots in a row are the same."""
    last = None
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        page.wait_for_timeout(1500)
        shot = page.locator("canvas").first.screenshot()
        picture = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)
        if last is not None and last.shape == picture.shape and np.abs(last - picture).max() < 8:
            return picture
        last = picture
    pytest.fail("the picture never came to rest")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)")
def test_the_panels_change_the_picture(viewer_address):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=BROWSER_OPTIONS)
        page = browser.new_page(viewport={"width": 1000, "height": 700})
        page.set_default_timeout(WAIT_S * 1000)
        page.goto(viewer_address)
        page.get_by_text(re.compile("Resolution: ")).first.wait_for()
        page.get_by_label("Hide Train Cams").or_(page.get_by_text("Hide Train Cams")).first.click()
        _choose(page, "Output type", "level_selected")
        _choose(page, "Level", "whole")
        whole = _settled_picture(page)
        _choose(page, "Level", "small")
        small = _settled_picture(page)
        _choose(page, "Output type", "relevancy")
        unasked = _settled_picture(page)
        _input_behind(page, "Text").fill("mug")
        page.get_by_role("button", name="Find").click()
        page.get_by_text(re.compile("best: node")).first.wait_for()
        asked = _settled_picture(page)
        browser.close()
    changed = np.abs(whole - small).max(axis=-1) > 30
    assert whole.std() > 5
    assert changed.mean() > 0.02
    assert (np.abs(asked - unasked).max(axis=-1) > 30).mean() > 0.02
