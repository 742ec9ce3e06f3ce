"""Several threads render, and the viewer interrupts them."""

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from hiersplat.gaussians.rasterization import rasterization
from hiersplat.gaussians.workers import in_shares, undisturbed


class Interrupted(Exception):
    pass


def _render(splats, camera, sh=None):
    return rasterization(
        splats.means, splats.quats, splats.scales, splats.opacities,
        splats.sh if sh is None else sh, camera.viewmat[None], camera.K[None],
        camera.width, camera.height, sh_degree=3, packed=False,
    )[0]  # fmt: skip


def test_several_threads_render_the_same(make_splats, make_camera):
    splats, camera = make_splats(300, size=0.1), make_camera(120, 90)
    expected = _render(splats, camera)
    results = []

    def work():
        sh = splats.sh.clone().requires_grad_()
        for _ in range(5):
            image = _render(splats, camera, sh)
            image.sum().backward()
            results.append(image.detach())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 20
    assert all(torch.equal(result, expected) for result in results)


def test_rendering_goes_on_after_interruptions_at_any_line(make_splats, make_camera):
    splats, camera = make_splats(100, size=0.1), make_camera()
    expected = _render(splats, camera)
    outcomes = []

    def work():
        # The viewer's way: raise from the trace function at whatever line comes next.
        for patience in range(0, 400, 3):
            left = patience

            def trace(frame, event, arg):
                nonlocal left
                if event == "line":
                    left -= 1
                    if left < 0:
                        raise Interrupted
                return trace

            sys.settrace(trace)
            try:
                _render(splats, camera)
                finished = True
            except Interrupted:
                finished = False
            finally:
                sys.settrace(None)
            outcomes.append((finished, torch.equal(_render(splats, camera), expected)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(outcomes) == 134
    assert not outcomes[0][0]
    assert outcomes[-1][0]
    assert all(same for _, same in outcomes)


def test_trace_function_is_restored():
    def trace(frame, event, arg):
        return None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with undisturbed():
            inside = sys.gettrace()
        after = sys.gettrace()
    finally:
        sys.settrace(before)
    assert inside is None
    assert after is trace


def test_failure_of_any_share_is_raised():
    def kernel(share, num_shares, done):
        done[share] = True
        if share == num_shares - 1:
            raise RuntimeError("broken")

    done = np.zeros(64, bool)
    with pytest.raises(RuntimeError, match="broken"):
        in_shares(kernel, done)
    assert done[: torch.get_num_threads()].all()


def test_signature_can_be_imported_without_numba():
    code = "import hiersplat.gaussians.rasterization, hiersplat.gaussians.lifting, sys;"
    code += "print(sorted({'numba', 'gsplat', 'nerfstudio'} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    assert result.stdout.strip() == "[]"
