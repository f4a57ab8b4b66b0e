import io

import numpy as np
import pytest
from PIL import Image

from jaxcrnn.data.images import ImageError, Limits, fit_height, fitted_width, read_gray


def encoded(image, form="PNG", **options):
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def half_black(mode):
    """Left half black, right half white, in a mode of Pillow."""
    gray = np.zeros((4, 8), np.uint8)
    gray[:, 4:] = 255
    if mode == "I;16":
        return Image.fromarray(gray.astype(np.uint16) * 257)
    if mode == "I":
        return Image.fromarray(gray.astype(np.int32) * 257)
    if mode == "F":
        return Image.fromarray(gray.astype(np.float32) / 255)
    if mode in ("RGBA", "LA"):  # black ink on transparent paper
        return Image.merge(mode, [Image.new("L", (8, 4))] * (len(mode) - 1) + [Image.fromarray(255 - gray)])
    if mode == "P transparent":
        image = Image.fromarray(gray).convert("P")
        image.info["transparency"] = int(np.asarray(image)[0, 7])
        return image
    return Image.fromarray(gray).convert(mode)


FORMATS = {
    "1": "PNG",
    "L": "PNG",
    "P": "PNG",
    "RGB": "PNG",
    "RGBA": "PNG",
    "LA": "PNG",
    "CMYK": "TIFF",
    "YCbCr": "TIFF",
    "I;16": "PNG",
    "I": "TIFF",
    "F": "TIFF",
    "P transparent": "PNG",
}


@pytest.mark.parametrize("mode", FORMATS)
def test_every_image_mode_is_converted_to_gray(mode):
    gray = read_gray(encoded(half_black(mode), FORMATS[mode]), Limits())
    assert gray.dtype == np.uint8
    assert gray.shape == (4, 8)
    assert gray[:, :4].max() <= 2
    assert gray[:, 4:].min() >= 253


def test_exif_orientation_is_applied():
    image = Image.new("L", (8, 4), 255)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_gray(encoded(image, "JPEG", exif=exif), Limits()).shape == (8, 4)


GOOD = encoded(Image.effect_noise((200, 100), 80))


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (b"", "unreadable image", "0 bytes"),
        (b"hello", "unreadable image", "not an image"),
        (GOOD[: len(GOOD) // 2], "unreadable image", "truncated"),
        (GOOD[:40] + b"\x00" * 40 + GOOD[80:], "unreadable image", "x.png: "),
        (encoded(Image.new("1", (9000, 9000))), "absurd size", "9000x9000 pixels; the limit is 32,000,000"),
        (
            encoded(Image.new("1", (20_000, 20_000))),
            "absurd size",
            "more than 178,956,970 pixels; the limit is 32,000,000",
        ),
    ],
    ids=["empty", "text", "truncated", "broken", "large", "bomb"],
)
def test_invalid_images_are_rejected(data, kind, message):
    with pytest.raises(ImageError, match=message) as caught:
        read_gray(data, Limits(), "x.png")
    assert caught.value.kind == kind


def test_missing_file_and_folder_are_rejected(tmp_path):
    with pytest.raises(ImageError, match="no such file") as caught:
        read_gray(tmp_path / "none.png", Limits())
    assert caught.value.kind == "missing image"
    with pytest.raises(ImageError, match="directory"):
        read_gray(tmp_path, Limits())


def test_fit_height_keeps_the_aspect_ratio():
    gray = np.full((24, 94), 7, np.uint8)
    assert fit_height(gray, 32, Limits()).shape == (32, 125)
    assert fit_height(gray[:, :1].repeat(50, 0), 32, Limits()).shape == (32, 1)
    same = np.zeros((32, 5), np.uint8)
    assert fit_height(same, 32, Limits()) is same
    with pytest.raises(ImageError, match=r"94x24 becomes 125 px wide at height 32; the limit is 100 px"):
        fit_height(gray, 32, Limits(max_width=100))


@pytest.mark.parametrize("size", [(60, 20), (20, 60), (32, 32), (7, 3)])
@pytest.mark.parametrize("vertical", [False, True])
def test_width_is_known_without_scaling_the_image(size, vertical):
    limits = Limits(vertical=vertical)
    assert fitted_width(size, 32, limits) == fit_height(np.zeros(size, np.uint8), 32, limits).shape[1]
