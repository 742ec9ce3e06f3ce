"""The ``--prompt`` of ``hiersplat-demo``: a text against one image and its masks."""

from typing import TYPE_CHECKING, Any

import numpy as np

from hiersplat.levels import Level

if TYPE_CHECKING:
    from hiersplat.segmentation.pyramid import MaskPyramid


class Prompt:
    """A text that is looked for in an image; whether it can be is settled when it is made."""

    def __init__(self, text: str, checkpoint: str, device: str) -> None:
        """Load CLIPSeg and embed the text.

        Raises:
            FileNotFoundError: If the weights cannot be had.
            ValueError: If the text cannot be asked for.
        """
        from hiersplat.semantics.clipseg import ClipSegEncoder
        from hiersplat.semantics.config import FeaturesConfig
        from hiersplat.semantics.query import QueryConfig

        self.text = text
        self.encoder = ClipSegEncoder(FeaturesConfig(checkpoint=checkpoint), device)
        self.config = QueryConfig()
        self.embedding = self.encoder.text_embeddings([text])[0]
        self.negatives = self.encoder.text_embeddings(self.config.negatives)

    def answer(self, image: np.ndarray, pyramid: "MaskPyramid") -> tuple[np.ndarray, Any]:
        """Draw relevancy a pixel and a mask, and list the best masks.

        Args:
            image: The image, uint8 RGB.
            pyramid: Its masks.

        Returns:
            A picture, and a table for the terminal.
        """
        from rich.table import Table

        from hiersplat.segmentation.panels import draw_contours, picture_grid
        from hiersplat.semantics.query import relevancy
        from hiersplat.semantics.view_features import embed_masks

        counts = [pyramid.num_masks(level) for level in Level]
        tables = embed_masks(self.encoder, image, pyramid.labels, counts)
        heat = self.encoder.relevancy_maps(image, [self.text])[0]
        cells = [("image", image), ("relevancy a pixel", blend_heat(image, heat))]
        table = Table(title=f'"{self.text}": the best mask of each level')
        for heading in ("level", "mask", "relevancy", "area"):
            table.add_column(heading, justify="left" if heading == "level" else "right")
        for level in reversed(Level):
            scores = relevancy(
                tables[level], self.embedding, self.negatives, self.config.temperature
            )
            if not len(scores):
                continue
            best = int(scores.argmax())
            labels = pyramid.labels[level]
            of_pixels = np.append(scores, 0.0)[labels]  # -1 finds the 0 at the end.
            found = (labels == best).astype(np.int32)
            caption = f"{level.title}: mask {best}, {scores[best]:.2f}"
            cells.append((caption, draw_contours(blend_heat(image, of_pixels), found, width=2)))
            table.add_row(
                level.title,
                str(best),
                f"{scores[best]:.2f}",
                f"{found.mean():.2%}",
                style="bold" if scores[best] > self.config.threshold else "",
            )
        table.caption = f"found above {self.config.threshold}; {self.encoder.note}".rstrip("; ")
        return picture_grid([cells], f'"{self.text}"'), table


def blend_heat(image: np.ndarray, relevancy: np.ndarray) -> np.ndarray:
    """Lay relevancy in [0, 1] over an image, from blue (nothing) to red."""
    import cv2

    heat = (relevancy.clip(0, 1) * 255).round().astype(np.uint8)
    colours = cv2.applyColorMap(heat, cv2.COLORMAP_TURBO)[..., ::-1]
    return (0.35 * image + 0.65 * colours).round().astype(np.uint8)
