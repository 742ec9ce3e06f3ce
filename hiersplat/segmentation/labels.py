"""The segmenter that knows: true ids of a data set, as mask records with levels."""

import numpy as np

from hiersplat.label_maps import LABELS_FOLDER
from hiersplat.levels import Level
from hiersplat.segmentation.masks import edges_per_label, make_record
from hiersplat.segmentation.proposals import MaskProposals, Record, View


class LabelsSegmenter:
    """Turns the label maps of a data set into records, one for every id of every level."""

    def propose(self, view: View) -> MaskProposals:
        """Return one record for every id of every level, with scores of 1.

        Raises:
            ValueError: If the view has no labels, or labels of another size than its image.
        """
        if view.labels is None:
            raise ValueError(
                f"{view.name}: the data set has no label map for this view "
                f"(expected in the folder {LABELS_FOLDER}/); choose another segmenter"
            )
        shape = view.image.shape[:2]
        labels = np.asarray(view.labels)
        if labels.shape != (3, *shape):
            raise ValueError(
                f"{view.name}: the label map has shape {labels.shape}, expected {(3, *shape)}"
            )
        records: list[Record] = []
        levels: list[Level | None] = []
        for level in Level:
            for edges in edges_per_label(labels[level]).values():
                records.append(make_record(edges, (shape[0], shape[1]), 1.0, 1.0))
                levels.append(level)
        return MaskProposals(records, levels)
