from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from hiersplat.label_maps import label_map_path, read_label_map, write_label_map
from hiersplat.levels import UNLABELLED, Level


@given(
    arrays(
        np.int32,
        array_shapes(min_dims=2, max_dims=2, max_side=6).map(lambda shape: (3, *shape)),
        elements=st.integers(-1, 65534),
    )
)
def test_label_maps_survive_the_disk(tmp_path_factory, labels):
    path = tmp_path_factory.mktemp("labels") / "view.png"
    write_label_map(path, labels)
    np.testing.assert_array_equal(read_label_map(path), labels)


def test_red_is_small_and_blue_is_whole(tmp_path: Path):
    path = tmp_path / "view.png"
    labels = np.stack([np.full((2, 2), value) for value in (7, 8, UNLABELLED)]).astype(np.int32)
    write_label_map(path, labels)
    blue, green, red = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[0, 0].tolist()
    assert (red, green, blue) == (7, 8, 65535)
    assert read_label_map(path)[Level.WHOLE, 0, 0] == UNLABELLED


@pytest.mark.parametrize("value", [-2, 65535])
def test_ids_that_do_not_fit_are_refused(tmp_path: Path, value: int):
    with pytest.raises(ValueError, match="ids must be in"):
        write_label_map(tmp_path / "view.png", np.full((3, 2, 2), value, np.int32))


def test_other_pictures_are_no_label_maps(tmp_path: Path):
    path = tmp_path / "view.png"
    cv2.imwrite(str(path), np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(ValueError, match="expected a 16-bit PNG"):
        read_label_map(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="expected a 16-bit PNG"):
        read_label_map(path)


def test_label_maps_lie_beside_the_images():
    path = label_map_path(Path("scene"), Path("scene/images_2/r_1.jpg"))
    assert path == Path("scene/labels/r_1.png")
