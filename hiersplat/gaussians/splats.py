"""3D Gaussians as tensors before activation, in the words of gsplat and of the 3DGS ``.ply``."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Splats:
    """The geometry and the colours of a scene; float32, all on one device."""

    means: Float[Tensor, "num_gaussians 3"]
    """Centres in the world."""

    quats: Float[Tensor, "num_gaussians 4"]
    """Orientations, wxyz, not necessarily of unit length."""

    log_scales: Float[Tensor, "num_gaussians 3"]
    """Logarithm of the standard deviations along the three axes."""

    logit_opacities: Float[Tensor, " num_gaussians"]
    """Opacities before the sigmoid."""

    sh: Float[Tensor, "num_gaussians num_bases 3"]
    """Spherical harmonics of the colours; 1, 4, 9 or 16 bases for degree 0 to 3."""

    def __post_init__(self) -> None:
        """Check the shapes.

        Raises:
            ValueError: If a tensor does not fit the others.
        """
        count = self.means.shape[0]
        expected = {"means": (3,), "quats": (4,), "log_scales": (3,), "logit_opacities": ()}
        for name, tail in expected.items():
            shape = tuple(getattr(self, name).shape)
            if shape != (count, *tail):
                raise ValueError(f"{name} has shape {shape}; expected {(count, *tail)}")
        shape = tuple(self.sh.shape)
        if self.sh.ndim != 3 or shape[0] != count or shape[1] not in (1, 4, 9, 16) or shape[2] != 3:
            raise ValueError(
                f"sh has shape {shape}; expected ({count}, 1 | 4 | 9 | 16, 3) for degree 0 to 3"
            )

    def __len__(self) -> int:
        return self.means.shape[0]

    @property
    def scales(self) -> Float[Tensor, "num_gaussians 3"]:
        """Standard deviations along the three axes, in units of the world."""
        return torch.exp(self.log_scales)

    @property
    def opacities(self) -> Float[Tensor, " num_gaussians"]:
        """Opacities in (0, 1)."""
        return torch.sigmoid(self.logit_opacities)

    @property
    def sh_degree(self) -> int:
        """Degree of the spherical harmonics, 0 to 3."""
        return {1: 0, 4: 1, 9: 2, 16: 3}[self.sh.shape[1]]

    def to(self, device: torch.device | str) -> "Splats":
        """Return the same Gaussians on another device."""
        return Splats(
            **{field.name: getattr(self, field.name).to(device) for field in fields(self)}
        )
