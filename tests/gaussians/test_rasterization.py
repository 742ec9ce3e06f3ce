"""The CPU's engine against the slow twin, in values and gradients."""

import numpy as np
import pytest
import torch
from gsplat.strategy import DefaultStrategy
from hypothesis import given, settings
from hypothesis import strategies as st

from hiersplat.gaussians.rasterization import rasterization
from hiersplat.gaussians.reference import rasterization_

NAMES = ("means", "quats", "scales", "opacities", "colors", "viewmats", "backgrounds")


def _parts(splats, cameras=1, channels=None):
    """Return the seven inputs that have gradients, with poses that are slightly turned."""
    random = torch.Generator().manual_seed(1)
    viewmats = torch.eye(4).repeat(cameras, 1, 1)
    turned = torch.linalg.matrix_exp(
        torch.stack([_skew(torch.randn(3, generator=random) * 0.2) for _ in range(cameras)])
    )
    viewmats[:, :3, :3] = turned
    viewmats[:, 2, 3] = 4.0
    colors = splats.sh if channels is None else torch.rand(len(splats), channels, generator=random)
    backgrounds = torch.rand(cameras, channels or 3, generator=random)
    return [
        splats.means, splats.quats, splats.scales, splats.opacities, colors, viewmats, backgrounds,
    ]  # fmt: skip


def _skew(v):
    zero = torch.zeros(())
    return torch.stack(
        [
            torch.stack([zero, -v[2], v[1]]),
            torch.stack([v[2], zero, -v[0]]),
            torch.stack([-v[1], v[0], zero]),
        ]
    )


def _run(engine, parts, dtype, width=52, height=37, **options):
    """Return image, coverage, info and gradients of a fixed random loss."""
    means, quats, scales, opacities, colors, viewmats, backgrounds = leaves = [
        part.detach().to(dtype).clone().requires_grad_() for part in parts
    ]
    focal = 1.2 * width
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]], dtype=dtype)
    image, alphas, info = engine(
        means, quats, scales, opacities, colors, viewmats, K.repeat(len(viewmats), 1, 1),
        width, height, backgrounds=backgrounds, **options,
    )  # fmt: skip
    random = torch.Generator().manual_seed(2)
    pull = torch.randn(image.shape, generator=random, dtype=torch.float64).to(dtype)
    push = torch.randn(alphas.shape, generator=random, dtype=torch.float64).to(dtype)
    ((image * pull).sum() + (alphas * push).sum()).backward()
    grads = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
    return image.detach(), alphas.detach(), info, grads


def _check(parts, tolerance=1e-5, width=52, height=37, **options):
    """Compare the engine in float32 with the twin in float64."""
    image, alphas, _, grads = _run(
        rasterization, parts, torch.float32, width, height, packed=False, **options
    )
    true_image, true_alphas, _, true_grads = _run(
        rasterization_, parts, torch.float64, width, height, **options
    )
    scale = max(float(true_image.abs().max()), 1.0)
    assert float((image - true_image).abs().max()) <= tolerance * scale
    assert float((alphas - true_alphas).abs().max()) <= tolerance
    for name, grad, truth in zip(NAMES, grads, true_grads, strict=True):
        largest = float(truth.abs().max()) if truth.numel() else 0.0
        worst = float((grad - truth).abs().max()) if truth.numel() else 0.0
        allowed = 10 * tolerance * max(largest, 1.0)
        assert worst <= allowed, name


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_harmonics_of_every_degree_match_the_twin(make_splats, degree):
    _check(_parts(make_splats(150, size=0.1)), sh_degree=degree)


@pytest.mark.parametrize("render_mode", ["RGB", "D", "ED", "RGB+D", "RGB+ED"])
@pytest.mark.parametrize("rasterize_mode", ["classic", "antialiased"])
def test_every_mode_matches_the_twin(make_splats, render_mode, rasterize_mode):
    _check(
        _parts(make_splats(100, seed=3, size=0.1), channels=3),
        tolerance=3e-5,
        render_mode=render_mode,
        rasterize_mode=rasterize_mode,
    )


@pytest.mark.parametrize("channels", [1, 2, 8, 9, 16, 40])
def test_any_number_of_channels_matches_the_twin(make_splats, channels):
    _check(_parts(make_splats(80, seed=4, size=0.1), channels=channels))


def test_several_cameras_match_the_twin(make_splats):
    _check(_parts(make_splats(80, seed=5), cameras=3), sh_degree=2)


def test_colors_of_each_camera_match_the_twin(make_splats):
    parts = _parts(make_splats(60, seed=6), cameras=2)
    parts[4] = torch.stack([parts[4], -parts[4]])
    _check(parts, sh_degree=1)


@pytest.mark.parametrize(
    "options",
    [
        {"radius_clip": 4.0},
        {"near_plane": 3.5, "far_plane": 4.5},
        {"eps2d": 1.5},
        {"tile_size": 8},
        {"tile_size": 20},
    ],
)
def test_culling_options_match_the_twin(make_splats, options):
    _check(_parts(make_splats(100, seed=7), channels=3), **options)


@pytest.mark.parametrize("size", [(1, 1), (3, 70), (33, 32), (65, 5)])
def test_images_of_odd_sizes_match_the_twin(make_splats, size):
    width, height = size
    _check(_parts(make_splats(60, seed=8, size=0.2), channels=3), width=width, height=height)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 40),
    size=st.sampled_from([1e-4, 0.02, 0.3, 3.0]),
    spread=st.sampled_from([0.0, 0.5, 5.0]),
    stretch=st.sampled_from([0.0, 1.0, 3.0]),
    opacity=st.sampled_from([-9.0, 0.0, 9.0]),
)
def test_random_scenes_match_the_twin(seed, count, size, spread, stretch, opacity):
    # Behind the camera, off the image, tiny, huge, needles, transparent, opaque, none at all.
    random = torch.Generator().manual_seed(seed)
    parts = [
        torch.randn(count, 3, generator=random) * spread,
        torch.randn(count, 4, generator=random),
        torch.exp(torch.randn(count, 3, generator=random) * stretch) * size,
        torch.sigmoid(torch.randn(count, generator=random) + opacity),
        torch.rand(count, 3, generator=random),
        _parts(_none())[5],
        torch.rand(1, 3, generator=random),
    ]
    image, alphas, info, grads = _run(rasterization, parts, torch.float32, 40, 30, packed=False)
    true_image, true_alphas, _, true_grads = _run(rasterization_, parts, torch.float64, 40, 30)
    # At a threshold (1/255, the stop, a clamp, a tile's edge) one rounding decides, so a few
    # pixels may differ by what one step is worth; everything else agrees.
    assert float(((image - true_image).abs() > 1e-4).float().mean()) < 0.01
    assert float((image - true_image).abs().max()) < 0.02
    assert torch.isfinite(image).all()
    assert float((alphas - true_alphas).abs().median()) < 1e-5
    for grad, truth in zip(grads, true_grads, strict=True):
        assert torch.isfinite(grad).all()
        if truth.numel():
            difference = (grad - truth).norm() / truth.norm().clamp(min=1e-2)
            assert float(difference) < 0.01


def _none():
    from hiersplat.gaussians.splats import Splats

    return Splats(
        torch.zeros(0, 3),
        torch.zeros(0, 4),
        torch.zeros(0, 3),
        torch.zeros(0),
        torch.zeros(0, 1, 3),
    )


def test_no_gaussians_show_the_background():
    image, alphas, _, _ = _run(rasterization, _parts(_none(), channels=3), torch.float32)
    torch.testing.assert_close(image, _parts(_none(), channels=3)[6].expand_as(image))
    assert not alphas.any()


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", [0, 1, 2])
def test_gaussian_that_is_not_a_number_is_not_drawn(make_splats, poison, part):
    parts = _parts(make_splats(20, size=0.2), channels=3)
    without = [p[1:] if i < 5 else p for i, p in enumerate(parts)]
    parts[part] = parts[part].clone()
    parts[part][0] = poison
    image, alphas, _, _ = _run(rasterization, parts, torch.float32, packed=False)
    clean, _, _, _ = _run(rasterization, without, torch.float32, packed=False)
    torch.testing.assert_close(image, clean)


def test_covariances_in_place_of_shapes_match_the_twin(make_splats):
    from hiersplat.gaussians.reference import covariances_

    splats = make_splats(60, size=0.1)
    covars = covariances_(splats.quats, splats.scales)
    K = torch.tensor([[[60.0, 0, 26], [0, 60, 18], [0, 0, 1]]])
    viewmat = torch.eye(4)[None].clone()
    viewmat[0, 2, 3] = 4
    results = []
    for engine, dtype in ((rasterization, torch.float32), (rasterization_, torch.float64)):
        leaf = covars.detach().to(dtype).requires_grad_()
        image, _, _ = engine(
            *(x.to(dtype) for x in (splats.means, splats.quats, splats.scales, splats.opacities)),
            splats.sh[:, 0].to(dtype), viewmat.to(dtype), K.to(dtype), 52, 37, covars=leaf,
        )  # fmt: skip
        (image**2).sum().backward()
        # Only the symmetric part means anything.
        results.append((image.detach(), leaf.grad + leaf.grad.transpose(1, 2)))
    torch.testing.assert_close(results[0][0].double(), results[1][0], rtol=1e-4, atol=1e-5)
    worst = (results[0][1] - results[1][1]).abs().max() / results[1][1].abs().max()
    assert float(worst) < 1e-4


def test_packed_rows_render_the_same(make_splats):
    parts = _parts(make_splats(100), cameras=2)
    image, alphas, info, grads = _run(
        rasterization, parts, torch.float32, packed=False, sh_degree=3
    )
    other = _run(rasterization, parts, torch.float32, packed=True, sh_degree=3)
    torch.testing.assert_close(image, other[0])
    for grad, packed_grad in zip(grads, other[3], strict=True):
        torch.testing.assert_close(grad, packed_grad, rtol=1e-4, atol=1e-4)
    seen = torch.nonzero(info["radii"] > 0, as_tuple=True)
    torch.testing.assert_close(other[2]["camera_ids"], seen[0])
    torch.testing.assert_close(other[2]["gaussian_ids"], seen[1])
    torch.testing.assert_close(other[2]["means2d"], info["means2d"][seen])


def test_rendering_is_the_same_every_time(make_splats):
    parts = _parts(make_splats(300, size=0.1))
    first = _run(rasterization, parts, torch.float32, 130, 70, packed=False, sh_degree=3)
    second = _run(rasterization, parts, torch.float32, 130, 70, packed=False, sh_degree=3)
    assert torch.equal(first[0], second[0])
    for a, b in zip(first[3], second[3], strict=True):
        assert torch.equal(a, b)


def test_info_is_what_gsplat_gives(make_splats):
    splats = make_splats(50)
    _, _, info, _ = _run(rasterization, _parts(splats), torch.float32, packed=False, sh_degree=3)
    assert (info["width"], info["height"], info["n_cameras"], info["tile_size"]) == (52, 37, 1, 16)
    assert (info["tile_width"], info["tile_height"]) == (4, 3)
    assert info["camera_ids"] is None
    assert info["gaussian_ids"] is None
    shapes = {"radii": (), "means2d": (2,), "depths": (), "conics": (3,), "opacities": ()}
    for name, tail in shapes.items():
        assert info[name].shape == (1, 50, *tail), name
    assert info["tiles_per_gauss"].shape == (1, 50)
    assert ((info["tiles_per_gauss"] > 0) == (info["radii"] > 0)).all()
    assert info["radii"].dtype == torch.int32


def test_centres_in_the_image_keep_their_gradients(make_splats):
    splats = make_splats(40, size=0.1)
    means = splats.means.clone().requires_grad_()
    K = torch.tensor([[[60.0, 0, 26], [0, 60, 18], [0, 0, 1]]])
    viewmat = torch.eye(4)[None].clone()
    viewmat[0, 2, 3] = 4
    image, _, info = rasterization(
        means, splats.quats, splats.scales, splats.opacities, splats.sh[:, 0], viewmat, K, 52, 37,
        packed=False, absgrad=True,
    )  # fmt: skip
    info["means2d"].retain_grad()
    image.square().sum().backward()
    grad, absolute = info["means2d"].grad, info["means2d"].absgrad
    assert grad.shape == absolute.shape == (1, 40, 2)
    assert (absolute >= grad.abs() - 1e-4).all()
    assert absolute.sum() > grad.abs().sum()


def test_absolute_gradients_are_sums_over_pixels(make_splats):
    # The twin's absolute gradient: one backward pass per pixel.
    splats = make_splats(5, size=0.3)
    K = torch.tensor([[[12.0, 0, 5], [0, 12, 4], [0, 0, 1]]])
    viewmat = torch.eye(4)[None].clone()
    viewmat[0, 2, 3] = 4
    arguments = (splats.means, splats.quats, splats.scales, splats.opacities, splats.sh[:, 0])
    leaves = [x.clone().requires_grad_() for x in arguments]
    image, _, info = rasterization(*leaves, viewmat, K, 10, 8, packed=False, absgrad=True)
    image.sum().backward()
    leaves = [x.double().requires_grad_() for x in arguments]
    image, _, twin = rasterization_(*leaves, viewmat.double(), K.double(), 10, 8)
    expected = torch.zeros(5, 2, dtype=torch.float64)
    for pixel in image.sum(-1).flatten():
        (grad,) = torch.autograd.grad(pixel, twin["means2d"], retain_graph=True)
        expected += grad[0].abs()
    torch.testing.assert_close(info["means2d"].absgrad[0].double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("absgrad", [False, True])
def test_densification_of_gsplat_runs_unchanged(make_splats, absgrad):
    splats = make_splats(60, size=0.1)
    params = torch.nn.ParameterDict(
        {
            "means": splats.means,
            "scales": splats.log_scales,
            "quats": splats.quats,
            "opacities": splats.logit_opacities,
            "sh": splats.sh,
        }
    )
    optimizers = {name: torch.optim.Adam([value], lr=1e-3) for name, value in params.items()}
    strategy = DefaultStrategy(
        refine_start_iter=0, refine_every=3, reset_every=8, grow_grad2d=1e-9, grow_scale3d=0.1,
        prune_opa=0.2, pause_refine_after_reset=0, absgrad=absgrad, verbose=False,
    )  # fmt: skip
    strategy.check_sanity(params, optimizers)
    state = strategy.initialize_state(scene_scale=1.0)
    K = torch.tensor([[[60.0, 0, 26], [0, 60, 18], [0, 0, 1]]])
    viewmat = torch.eye(4)[None].clone()
    viewmat[0, 2, 3] = 4
    counts = []
    for step in range(10):
        image, _, info = rasterization(
            params["means"], params["quats"], params["scales"].exp(),
            params["opacities"].sigmoid(), params["sh"], viewmat, K, 52, 37, sh_degree=3,
            packed=False, absgrad=absgrad,
        )  # fmt: skip
        strategy.step_pre_backward(params, optimizers, state, step, info)
        (image - 0.5).square().mean().backward()
        strategy.step_post_backward(params, optimizers, state, step, info, packed=False)
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        counts.append(len(params["means"]))
    assert len(set(counts)) > 1
    assert float(params["opacities"].detach().sigmoid().max()) <= 0.41


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparse_grad": True}, "sparse_grad"),
        ({"distributed": True}, "distributed"),
        ({"camera_model": "fisheye"}, "fisheye"),
        ({"camera_model": "ortho"}, "ortho"),
        ({"render_mode": "depth"}, "depth"),
        ({"rasterize_mode": "soft"}, "soft"),
        ({"tile_size": 10}, "multiple of 4"),
        ({"sh_degree": 4}, "degree"),
        ({"width": 0}, "0 x 37"),
        ({"backgrounds": torch.zeros(1, 4)}, "backgrounds"),
        ({"quats": torch.zeros(3, 4)}, "quats"),
        ({"opacities": torch.zeros(4, 1)}, "opacities"),
        ({"means": torch.zeros(4, 3, dtype=torch.float64)}, "float64"),
        ({"colors": torch.zeros(5, 3)}, "colors"),
        ({"colors": torch.zeros(4, 0)}, "channels"),
        ({"colors": torch.zeros(4, 3, 3), "sh_degree": 1}, "bases"),
    ],
)
def test_what_the_cpu_does_not_do_is_refused(options, message):
    arguments = {
        "means": torch.zeros(4, 3),
        "quats": torch.ones(4, 4),
        "scales": torch.ones(4, 3),
        "opacities": torch.ones(4),
        "colors": torch.zeros(4, 3),
        "viewmats": torch.eye(4)[None],
        "Ks": torch.eye(3)[None],
        "width": 52,
        "height": 37,
    }
    with pytest.raises(ValueError, match=message):
        rasterization(**(arguments | options))


def test_signature_is_that_of_gsplat():
    import inspect

    import gsplat

    ours, theirs = (inspect.signature(f).parameters for f in (rasterization, gsplat.rasterization))
    assert list(ours) == list(theirs)
    assert [p.default for p in ours.values()] == [p.default for p in theirs.values()]


def test_opaque_gaussian_in_front_hides_the_one_behind():
    K = torch.tensor([[[20.0, 0, 8], [0, 20, 8], [0, 0, 1]]])
    image, alphas, _ = rasterization(
        torch.tensor([[0.0, 0, 3], [0, 0, 2]]), torch.tensor([[1.0, 0, 0, 0]] * 2),
        torch.full((2, 3), 0.3), torch.tensor([1.0, 1.0]), torch.tensor([[1.0, 0, 0], [0, 1, 0]]),
        torch.eye(4)[None], K, 16, 16,
    )  # fmt: skip
    np.testing.assert_allclose(image[0, 8, 8, :2].numpy(), [0.0, 1.0], atol=0.05)
    assert float(alphas[0, 8, 8, 0]) > 0.99
