import numpy as np
import pytest

from hiersplat.levels import UNLABELLED, Level
from hiersplat.segmentation.labels import LabelsSegmenter
from hiersplat.segmentation.proposals import View
from hiersplat.segmentation.pyramid import PyramidConfig, build_pyramid


def view(labels, shape=(6, 8)):
    return View("view_007", np.zeros((*shape, 3), np.uint8), labels)


def truth():
    labels = np.full((3, 6, 8), UNLABELLED, np.int32)
    labels[:, :4] = np.array([5, 3, 1])[:, None, None]
    labels[0, :2, :3] = 9
    labels[1:, 4:] = np.array([7, 2])[:, None, None]
    labels[0, 4:] = 11
    labels[:, :, 7] = UNLABELLED
    return labels


def test_true_labels_come_back_from_the_pyramid():
    labels = truth()
    pyramid = build_pyramid(LabelsSegmenter().propose(view(labels)), (6, 8), PyramidConfig())
    for level in Level:
        pairs = np.unique(
            np.stack([labels[level].reshape(-1), pyramid.labels[level].reshape(-1)]), axis=1
        )
        assert pairs.shape[1] == len(np.unique(labels[level]))
        assert not pyramid.inherited[level].any()


def test_every_id_of_every_level_is_one_record():
    proposals = LabelsSegmenter().propose(view(truth()))
    assert proposals.levels == [Level.SMALL] * 3 + [Level.PART] * 2 + [Level.WHOLE] * 2


def test_view_without_labels_is_named():
    with pytest.raises(ValueError, match=r"view_007.*no label map"):
        LabelsSegmenter().propose(view(None))


def test_labels_of_another_size_are_named():
    with pytest.raises(ValueError, match=r"view_007.*\(3, 6, 8\)"):
        LabelsSegmenter().propose(view(np.zeros((3, 6, 9), np.int32)))
