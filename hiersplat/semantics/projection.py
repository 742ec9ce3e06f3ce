"""A short projection of dense features: few values a Gaussian instead of hundreds.

The principal directions of the features of all views of a scene, each scaled to unit variance,
so that a loss weighs them alike. What a Gaussian learns is the projected feature.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32


@dataclass(frozen=True)
class DenseProjection:
    """A linear map from dense features to a few values of mean 0 and variance 1."""

    mean: Float32[np.ndarray, " dense_dim"]
    """Mean of the dense features."""
    basis: Float32[np.ndarray, "dense_dim num_values"]
    """Principal directions, divided by the deviation along each."""
    explained: float
    """Share of the variance that the directions hold."""

    def project(
        self, dense: Float[np.ndarray, "*shape dense_dim"]
    ) -> Float32[np.ndarray, "*shape num_values"]:
        """Project dense features."""
        return ((dense.astype(np.float32) - self.mean) @ self.basis).astype(np.float32)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the projection as plain arrays for a checkpoint."""
        return {
            "mean": self.mean,
            "basis": self.basis,
            "explained": np.array(self.explained, np.float32),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "DenseProjection":
        """Rebuild a projection from :meth:`to_arrays`.

        Raises:
            ValueError: If an array is missing or they do not fit together.
        """
        try:
            mean, basis = arrays["mean"], arrays["basis"]
            explained = float(arrays["explained"])
        except KeyError as error:
            raise ValueError(f"these arrays are no projection ({error} is missing)") from error
        if basis.ndim != 2 or mean.shape != basis.shape[:1]:
            raise ValueError(f"these arrays are no projection ({mean.shape} and {basis.shape})")
        return cls(mean, basis, explained)


def fit_projection(
    views: Iterable[Float[np.ndarray, "rows columns dense_dim"]], num_values: int
) -> DenseProjection:
    """Find the principal directions of the dense features of all views, one view at a time.

    Directions along which nothing varies are zero, so there are always ``num_values``.

    Args:
        views: Dense features of each view.
        num_values: Number of directions.

    Raises:
        ValueError: If there are no views, or more directions are asked for than there are values.
    """
    count, total, products = 0, np.zeros(0), np.zeros((0, 0))
    for dense in views:
        rows = dense.reshape(-1, dense.shape[-1]).astype(np.float64)
        if not count:
            total, products = np.zeros(rows.shape[1]), np.zeros((rows.shape[1],) * 2)
        count += len(rows)
        total += rows.sum(axis=0)
        products += rows.T @ rows
    if not count:
        raise ValueError("there are no views to fit a projection to")
    if not 1 <= num_values <= len(total):
        raise ValueError(f"num_values must be in [1, {len(total)}], got {num_values}")
    mean = total / count
    variances, directions = np.linalg.eigh(products / count - np.outer(mean, mean))
    order = np.argsort(-variances)[:num_values]
    chosen = variances[order].clip(0)
    # Below this share of the largest, a direction is rounding noise, not to be blown up.
    usable = chosen > 1e-9 * max(float(chosen[0]), 1e-300)
    scale = np.where(usable, 1 / np.sqrt(np.where(usable, chosen, 1.0)), 0.0)
    # An eigenvector's sign is arbitrary; this makes it the same everywhere.
    basis = directions[:, order]
    basis = basis * np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(num_values)])
    explained = float(chosen.sum() / max(float(variances.clip(0).sum()), 1e-300))
    return DenseProjection(
        mean.astype(np.float32), (basis * scale).astype(np.float32), min(explained, 1.0)
    )
