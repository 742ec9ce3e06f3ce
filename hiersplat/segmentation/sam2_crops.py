"""The crops of an image, the grid of points on each, and the duplicates among their masks."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from hiersplat.segmentation.proposals import Record
from hiersplat.segmentation.sam2_boxes import without_duplicates
from hiersplat.segmentation.sam2_decoder import PointDecoder, product_type
from hiersplat.segmentation.sam2_memory import (
    in_batches,
    planned_batch,
    return_freed_memory,
)
from hiersplat.segmentation.sam2_model import encode_image
from hiersplat.segmentation.sam2_postprocess import (
    dense_of_edges,
    measure_masks,
    rle_of_edges,
    without_small_regions,
)
from hiersplat.segmentation.sam2_workers import spreading

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

    from hiersplat.segmentation.sam2 import Sam2Config


@dataclass
class FoundMasks:
    """Masks in the frame of the whole image; row i of every field is mask i."""

    predicted_iou: Float[np.ndarray, " masks"]
    stability: Float[np.ndarray, " masks"]
    points: Float[np.ndarray, "masks 2"]
    boxes: Int[np.ndarray, "masks 4"]
    crop_boxes: Int[np.ndarray, "masks 4"]
    edges: list[Int[np.ndarray, " edges"]]

    def pick(self, rows: Int[np.ndarray, " kept"]) -> "FoundMasks":
        """Return some of the masks, in the order given."""
        return FoundMasks(
            self.predicted_iou[rows],
            self.stability[rows],
            self.points[rows],
            self.boxes[rows],
            self.crop_boxes[rows],
            [self.edges[row] for row in rows],
        )

    @staticmethod
    def join(parts: "list[FoundMasks]") -> "FoundMasks":
        """Return the masks of several batches or crops, one after the other."""
        return FoundMasks(
            np.concatenate([part.predicted_iou for part in parts]),
            np.concatenate([part.stability for part in parts]),
            np.concatenate([part.points for part in parts]),
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.crop_boxes for part in parts]),
            [edges for part in parts for edges in part.edges],
        )


class CropSegmenter:
    """Finds the masks of an image, crop after crop."""

    def __init__(self, model: "SAM2Base", config: "Sam2Config") -> None:
        from sam2.utils.amg import build_all_layer_point_grids

        self._model = model
        self._config = config
        self._grids = build_all_layer_point_grids(
            config.points_per_side, config.crop_n_layers, config.crop_n_points_downscale_factor
        )

    def records(self, image: UInt8[np.ndarray, "height width 3"], output_mode: str) -> list[Record]:
        """Return the masks of an image as SAM's records."""
        found = self._find(image)
        # Dense masks are the largest things of all, and what found them is done with.
        return_freed_memory()
        shape = image.shape[:2]
        return [_record(found, row, shape, output_mode) for row in range(len(found.edges))]

    def _find(self, image: UInt8[np.ndarray, "height width 3"]) -> FoundMasks:
        from sam2.utils.amg import generate_crop_boxes

        config = self._config
        boxes, layers = generate_crop_boxes(
            image.shape[:2], config.crop_n_layers, config.crop_overlap_ratio
        )
        parts = [
            self._find_in_crop(image, np.asarray(box), layer)
            for box, layer in zip(boxes, layers, strict=True)
        ]
        found = FoundMasks.join(parts)
        if len(boxes) > 1:
            sides = found.crop_boxes[:, 2:] - found.crop_boxes[:, :2]
            # Masks of smaller crops are preferred.
            scores = 1 / sides.prod(axis=1).astype(np.float32)
            found = found.pick(without_duplicates(found.boxes, scores, config.crop_nms_thresh))
        return found

    def _find_in_crop(
        self, image: UInt8[np.ndarray, "height width 3"], box: np.ndarray, layer: int
    ) -> FoundMasks:
        config = self._config
        crop = np.ascontiguousarray(image[box[1] : box[3], box[0] : box[2]])
        kind = product_type(config.precision, self._model.device)
        features = encode_image(self._model, crop, kind)
        return_freed_memory()
        decoder = PointDecoder(self._model, features, kind)
        del features
        points = (self._grids[layer] * (crop.shape[1], crop.shape[0])).astype(np.float32)

        def find(some: Float[np.ndarray, "points 2"]) -> FoundMasks:
            return self._find_at_points(decoder, some, box, image.shape[:2])

        with spreading(self._model.device) as spread:
            size = planned_batch(config.points_per_batch, decoder.bytes_each, self._model.device)
            parts = in_batches(lambda batch: FoundMasks.join(spread(find, batch)), points, size)
        found = FoundMasks.join(parts)
        kept = without_duplicates(found.boxes, found.predicted_iou, config.box_nms_thresh)
        found = found.pick(kept)
        found.points = found.points + box[:2].astype(np.float32)
        return found

    def _find_at_points(
        self,
        decoder: PointDecoder,
        points: Float[np.ndarray, "points 2"],
        box: Int[np.ndarray, "4"],
        shape: tuple[int, int],
    ) -> FoundMasks:
        config = self._config
        crop_size = torch.as_tensor(box[2:] - box[:2], dtype=torch.float32)
        scaled = torch.as_tensor(points) / crop_size * self._model.image_size
        candidates = decoder.decode(scaled.to(self._model.device), config.pred_iou_thresh)
        logits = without_small_regions(
            candidates.logits,
            config.mask_threshold,
            config.min_mask_region_area,
            config.small_regions,
        )
        measured = measure_masks(
            logits,
            box,
            shape[0],
            config.mask_threshold,
            config.stability_score_offset,
            config.stability_score_thresh,
        )
        found = FoundMasks(
            candidates.predicted_iou.cpu().numpy()[measured.rows],
            measured.stability,
            points[candidates.prompts.cpu().numpy()[measured.rows]],
            measured.boxes,
            np.broadcast_to(box, (len(measured.rows), 4)),
            measured.edges,
        )
        return found.pick(np.flatnonzero(~_cut_by_crop(found.boxes, box, shape)))


def _cut_by_crop(
    boxes: Int[np.ndarray, "masks 4"], crop_box: Int[np.ndarray, "4"], shape: tuple[int, int]
) -> np.ndarray:
    """Tell which boxes end within 20 pixels of a crop's edge that is no edge of the image."""
    image_box = np.array([0, 0, shape[1], shape[0]])
    near_crop = np.abs(boxes - crop_box) <= 20
    near_image = np.abs(boxes - image_box) <= 20
    return np.any(near_crop & ~near_image, axis=1)


def _record(found: FoundMasks, row: int, shape: tuple[int, int], output_mode: str) -> Record:
    edges = found.edges[row]
    left, top, right, bottom = (float(edge) for edge in found.boxes[row])
    crop_left, crop_top, crop_right, crop_bottom = (float(edge) for edge in found.crop_boxes[row])
    segmentation: Any = (
        dense_of_edges(edges, shape) if output_mode == "binary_mask" else rle_of_edges(edges, shape)
    )
    return {
        "segmentation": segmentation,
        "area": int((edges[1::2] - edges[0::2]).sum()),
        "bbox": [left, top, right - left, bottom - top],
        "predicted_iou": float(found.predicted_iou[row]),
        "point_coords": [[float(value) for value in found.points[row]]],
        "stability_score": float(found.stability[row]),
        "crop_box": [crop_left, crop_top, crop_right - crop_left, crop_bottom - crop_top],
    }
