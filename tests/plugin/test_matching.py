import pytest
import torch

from hiersplat.plugin.matching import psnr_table, require_match


def views(count: int = 6, seed: int = 0) -> list[torch.Tensor]:
    """Smooth pictures that share a bright background, as views of one scene do."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 0.7 + 0.3 * torch.rand(count, 3, 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(80, 90), mode="bilinear")
    return list(smooth.movedim(1, -1))


def blurred(pictures: list[torch.Tensor]) -> list[torch.Tensor]:
    return [0.9 * one + 0.1 * one.mean() for one in pictures]


def test_blurred_renderings_of_the_same_views_match():
    images = views()
    require_match("run", "data", blurred(images), images)


def test_renderings_of_another_scene_are_refused_however_alike_the_scenes_are():
    images, others = views(), views(seed=1)
    assert psnr_table(others, images).diagonal().min() > 12
    with pytest.raises(ValueError, match="run: does not belong to data.* 6 views are rendered at"):
        require_match("run", "data", others, images)


def test_renderings_in_another_frame_are_refused():
    images = views()
    with pytest.raises(ValueError, match="0 of them are nearest to their own photograph"):
        require_match("run", "data", images[1:] + images[:1], images)


def test_black_renderings_are_refused():
    images = views()
    with pytest.raises(ValueError, match="does not belong"):
        require_match("run", "data", [torch.zeros_like(one) for one in images], images)


def test_sizes_may_differ():
    images = views()
    require_match("run", "data", [one[::2, ::2] for one in images], images)
