import io

import numpy as np
import pytest
from PIL import Image

from hiersplat.segmentation.images import read_image


@pytest.fixture
def save(tmp_path):
    def save_image(image, name="image.png"):
        path = tmp_path / name
        image.save(path)
        return path

    return save_image


def ramp(mode, shape=(4, 5)):
    return Image.fromarray(np.arange(shape[0] * shape[1], dtype=np.uint8).reshape(shape)).convert(
        mode
    )


def test_rgb_is_read_as_it_is(save):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    image = read_image(save(Image.fromarray(pixels)))
    np.testing.assert_array_equal(image, pixels)
    assert image.flags.writeable


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA"])
def test_other_modes_become_rgb(save, mode):
    image = read_image(save(ramp(mode)))
    assert image.shape == (4, 5, 3)
    assert image.dtype == np.uint8


def test_sixteen_bits_are_scaled_not_cut(save):
    deep = np.array([[0, 257, 32768, 65535]], np.uint16)
    image = read_image(save(Image.fromarray(deep)))
    np.testing.assert_array_equal(image[0, :, 0], [0, 1, 128, 255])
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


def test_cmyk_is_converted(save):
    assert read_image(save(ramp("CMYK"), "image.jpg")).shape == (4, 5, 3)


def test_what_is_transparent_is_laid_over_white(save):
    pixels = np.zeros((1, 2, 4), np.uint8)
    pixels[0, 1] = (10, 20, 30, 255)
    np.testing.assert_array_equal(
        read_image(save(Image.fromarray(pixels)))[0], [[255, 255, 255], [10, 20, 30]]
    )


def test_one_pixel_is_an_image(save):
    assert read_image(save(ramp("RGB", (1, 1)))).shape == (1, 1, 3)


def test_twenty_thousand_pixels_wide_is_read(save):
    assert read_image(save(Image.new("RGB", (20000, 30)))).shape == (30, 20000, 3)


@pytest.mark.parametrize("size", [(20000, 6000), (20000, 20000)])
def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, size):
    path = tmp_path / "huge.png"
    Image.new("1", size).save(path)
    with pytest.raises(ValueError, match=r"huge\.png.*scale it down"):
        read_image(path)


def test_floating_point_is_refused(save):
    path = save(Image.fromarray(np.zeros((2, 2), np.float32)), "deep.tiff")
    with pytest.raises(ValueError, match=r"deep\.tiff.*floating-point"):
        read_image(path)


def test_cut_off_image_is_named(tmp_path):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3)).astype(np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    path = tmp_path / "half.png"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(ValueError, match=r"half\.png: is damaged or cut off"):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_named(tmp_path, content):
    path = tmp_path / "text.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"text\.png: is"):
        read_image(path)


def test_missing_image_and_folder_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png: there is no such image"):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match="is a folder"):
        read_image(tmp_path)
