"""Whether geometry given from elsewhere is of the data set: its renderings know their own views."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

MIN_PSNR = 12.0
"""Below this (dB, in the mean) no rendering shows what the view shows."""
_SIDE = 64
"""Pictures are compared at this size, so that blur and sizes that differ do not matter."""

Picture = Float[Tensor, "_ _ 3"]


def psnr_table(
    renderings: Sequence[Picture], images: Sequence[Picture]
) -> Float[Tensor, "num_views num_views"]:
    """PSNR of every rendering (row) with the image of every view (column), in dB."""
    small = [
        torch.stack([adaptive_avg_pool2d(one.movedim(-1, 0), _SIDE) for one in pictures])
        for pictures in (renderings, images)
    ]
    errors = (small[0][:, None] - small[1][None]).square().flatten(2).mean(dim=2)
    return -10 * errors.clamp(min=1e-10).log10()


def require_match(
    what: str, data: str, renderings: Sequence[Picture], images: Sequence[Picture]
) -> None:
    """Raise a ``ValueError`` unless most renderings are nearest to the image of their own view.

    A level of PSNR alone says little: scenes of one kind share ground and background, and a
    short run renders its own views badly.

    Args:
        what: The geometry, for the message.
        data: The data set, for the message.
        renderings: Some views, spread over the scene, rendered from the geometry.
        images: Their photographs.
    """
    table = psnr_table(renderings, images)
    own = table.diagonal()
    num_own = int((own >= table.max(dim=1).values).sum())
    mean = float(own.mean())
    if mean < MIN_PSNR or num_own <= len(own) / 2:
        raise ValueError(
            f"{what}: does not belong to {data}, or its frame is not that of this data set: "
            f"{len(own)} views are rendered at {mean:.1f} dB, and {num_own} of them are nearest "
            "to their own photograph"
        )
