"""What a trained scene knows of words: the field's projection, descriptors, and the search.

It travels in the checkpoint, so the viewer answers wherever a run is taken to. CLIPSeg is loaded
when the first question is asked.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hiersplat.levels import Level
from hiersplat.semantics.config import FeaturesConfig
from hiersplat.semantics.descriptors import NodeDescriptors
from hiersplat.semantics.projection import DenseProjection
from hiersplat.semantics.query import NodeSearch, Ranking

NO_WORDS = "trained without semantic features: the scene cannot be asked in words"


class SceneSemantics:
    """The semantic side of a scene; empty where it was trained without features."""

    def __init__(self) -> None:
        self.projection: DenseProjection | None = None
        """From dense features to a Gaussian's values; ``None`` until the stage has begun."""
        self._descriptors: NodeDescriptors | None = None
        self._search: NodeSearch | None = None
        self._note = ""

    @property
    def descriptors(self) -> NodeDescriptors | None:
        """Descriptors of the nodes; ``None`` where there are none."""
        return self._descriptors

    @descriptors.setter
    def descriptors(self, descriptors: NodeDescriptors | None) -> None:
        self._descriptors, self._search = descriptors, None

    @property
    def note(self) -> str:
        """What every answer must say of the model it came from; empty for published weights."""
        return self._note

    def forget(self) -> None:
        """Let go of everything: descriptors are of one tree, a projection of one set of views."""
        self.projection = None
        self.descriptors = None

    def search(
        self, text: str, device: torch.device, level: Level | None, within: int | None
    ) -> Ranking:
        """Rank nodes by how well they fit a text.

        Args:
            text: What to look for.
            device: Where CLIPSeg is loaded to on the first question.
            level: Only nodes of this level.
            within: Only this node and what is below it.

        Raises:
            ValueError: If there is nothing to ask, or the text cannot be asked for.
            FileNotFoundError: If the weights cannot be had.
        """
        if self._descriptors is None:
            raise ValueError(NO_WORDS)
        if self._search is None:
            from hiersplat.semantics.clipseg import ClipSegEncoder

            config = FeaturesConfig(checkpoint=self._descriptors.checkpoint)
            encoder = ClipSegEncoder(config, device)
            self._note = encoder.note
            self._search = NodeSearch(self._descriptors, encoder)
        return self._search.search(text, level, within)

    def targets(
        self, dense: Float[Tensor, "rows columns dense_dim"]
    ) -> Float[Tensor, "rows columns dims"]:
        """Project a view's dense features to what its Gaussians should show."""
        assert self.projection is not None
        values = self.projection.project(dense.cpu().numpy())
        return torch.from_numpy(values).to(dense.device)

    def get_state(self) -> dict[str, Any]:
        """Return everything as tensors for a checkpoint."""
        return {
            name: {key: torch.from_numpy(np.array(array)) for key, array in part.items()}
            for name, part in (
                ("projection", self.projection.to_arrays() if self.projection else {}),
                ("descriptors", self._descriptors.to_arrays() if self._descriptors else {}),
            )
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Take what :meth:`get_state` returned.

        Raises:
            ValueError: If it is spoiled.
        """
        parts = {
            name: {key: value.cpu().numpy() for key, value in part.items()}
            for name, part in state.items()
        }
        projection, descriptors = parts.get("projection"), parts.get("descriptors")
        self.projection = DenseProjection.from_arrays(projection) if projection else None
        self.descriptors = NodeDescriptors.from_arrays(descriptors) if descriptors else None


def semantic_colors(
    values: Float[Tensor, "num_gaussians dims"],
) -> Float[Tensor, "num_gaussians 3"]:
    """Show the first three values as RGB: they have mean 0 and variance 1 over the views."""
    shown = values[:, :3]
    padded = torch.nn.functional.pad(shown, (0, 3 - shown.shape[1]))
    return (0.5 + padded / 4).clamp(0, 1)
