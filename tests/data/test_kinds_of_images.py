"""One line in every kind of image: files, Pillow images and the served model's loader see the same pixels."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageOps

from jaxcrnn.charset import Charset
from jaxcrnn.data.audit import audit, audit_table
from jaxcrnn.data.config import DataConfig
from jaxcrnn.data.images import (
    ImageError,
    Limits,
    fit_height,
    looks,
    noting_pages,
    pages_note,
    read_gray,
    to_gray,
    trimmed,
)
from jaxcrnn.data.labels import LabelFile
from jaxcrnn.data.loader import to_float

# A line of gray values from black to white, different in every corner.
GRAY = np.clip(np.add.outer(np.arange(48) * 2, np.arange(100) * 3), 0, 255).astype(np.uint8)
GRAY[0, 0], GRAY[-1, -1] = 0, 255


def encoded(image, form="PNG", **options):
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def turned(orientation, form="PNG"):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(GRAY), form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))


def kinds():
    """Files by name, and those with more than one page."""
    line = Image.fromarray(GRAY)
    paper = Image.merge("LA", [Image.new("L", line.size), Image.fromarray(255 - GRAY)])
    wide = GRAY.astype(np.uint32)
    two = {"save_all": True, "append_images": [Image.new("L", line.size)]}
    files = {
        "gray.png": encoded(line),
        "rgb.png": encoded(line.convert("RGB")),
        "bit.png": encoded(line.convert("1")),
        "palette.png": encoded(line.convert("P")),
        "la.png": encoded(paper),
        "alpha.png": encoded(paper.convert("RGBA")),
        "key.png": encoded(line.convert("RGB"), transparency=(0, 0, 0)),
        "gray-key.png": encoded(line, transparency=7),
        "transparent.gif": encoded(line.quantize(16), "GIF", transparency=3),
        "cmyk.jpg": encoded(line.convert("CMYK"), "JPEG"),
        "x.bmp": encoded(line, "BMP"),
        "x.webp": encoded(line, "WEBP", lossless=True),
        "x.tif": encoded(line, "TIFF", compression="tiff_lzw"),
        "big.tif": encoded(Image.frombytes("I;16B", line.size, (wide * 257).astype(">u2").tobytes()), "TIFF"),
        "i32.tif": encoded(Image.fromarray(GRAY.astype(np.int32)), "TIFF"),
        "i31.tif": encoded(Image.fromarray(GRAY.astype(np.int32) * (2**23)), "TIFF"),
        "f01.tif": encoded(Image.fromarray(GRAY.astype(np.float32) / 255), "TIFF"),
        "f255.tif": encoded(Image.fromarray(GRAY.astype(np.float32)), "TIFF"),
        "nan.tif": encoded(Image.fromarray(np.where(GRAY == 255, np.nan, GRAY).astype(np.float32)), "TIFF"),
        "pages.tif": encoded(line, "TIFF", **two),
        "lzw-pages.tif": encoded(line, "TIFF", compression="tiff_lzw", **two),
        "anim.gif": encoded(line, "GIF", **two),
        "anim.png": encoded(line, **two),
        "anim.webp": encoded(line, "WEBP", lossless=True, **two),
        "photo.mpo": encoded(line, "MPO", **two),
        "narrow.png": encoded(line.crop((0, 0, 7, 48))),
        "tall.png": encoded(line.transpose(Image.Transpose.ROTATE_270)),
    }
    files |= {
        f"u{bits}in16.png": encoded(Image.fromarray((wide * (2**bits - 1) // 255).astype(np.uint16)))
        for bits in (8, 10, 12, 14, 16)
    }
    files |= {f"exif{i}.png": turned(i) for i in range(9)}
    files |= {"exif6.webp": turned(6, "WEBP"), "exif6.jpg": turned(6, "JPEG"), "exif6.tif": turned(6, "TIFF")}
    return files


FILES = kinds()
PAGED = {"pages.tif", "lzw-pages.tif", "anim.gif", "anim.png", "anim.webp"}
EXACT = """
    gray.png rgb.png la.png alpha.png x.bmp x.webp x.tif pages.tif anim.gif big.tif i32.tif i31.tif f01.tif f255.tif
    nan.tif u8in16.png u10in16.png u12in16.png u14in16.png u16in16.png
""".split()


@pytest.mark.parametrize("name", FILES)
def test_file_and_open_image_give_the_same_pixels(name):
    gray = read_gray(FILES[name], Limits(), name)
    np.testing.assert_array_equal(to_gray(Image.open(io.BytesIO(FILES[name])), Limits(), name), gray)
    if name in EXACT:
        assert np.abs(gray.astype(int) - GRAY).max() <= 1


def test_exif_orientation_of_files_and_images():
    """All eight, and numbers that mean nothing."""
    for orientation in range(9):
        data = turned(orientation)
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        for gray in (read_gray(data, Limits()), to_gray(Image.open(io.BytesIO(data)), Limits())):
            np.testing.assert_array_equal(gray, expected)
        assert (expected.shape == GRAY.shape) == (orientation < 5)


def test_broken_file_and_broken_image_give_the_same_error():
    broken = encoded(Image.fromarray(GRAY), exif=b"Exif\0\0MM\xe2*" + bytes(9))
    for data, why in ((FILES["gray.png"][:-200], ""), (FILES["x.bmp"][:-300], ""), (broken, "invalid EXIF data")):
        with pytest.raises(ImageError, match=f"a: .*{why}"):
            read_gray(data, Limits(), "a")
        with pytest.raises(ImageError, match=f"a: .*{why}"):
            to_gray(Image.open(io.BytesIO(data)), Limits(), "a")


def test_pages_are_counted():
    with noting_pages() as outer:
        read_gray(FILES["pages.tif"], Limits(), "before.tif")
        with noting_pages() as names:
            for name, data in FILES.items():
                read_gray(data, Limits(), name)
    assert set(names) == PAGED
    assert outer == ["before.tif", *names]
    assert (
        pages_note(["b.tif", "a.gif"]) == "2 images have several pages or frames; only the first is read: a.gif, b.tif"
    )
    assert pages_note(list("dcba")).endswith(": a, b, c and 1 more")
    assert pages_note(["a"]).startswith("1 image has")


def page_loader(folder, monkeypatch, facts):
    """Run the loader of the page with a model that shows its input, and return its ``read``."""
    page = (Path(__file__).parents[2] / "docs" / "open-doors.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(import io\n.*?)^```", page, re.M | re.S)
    (folder / "served").mkdir()
    (folder / "served" / "model.bin").write_bytes(b"")
    (folder / "served" / "charset.txt").write_text("a\n")
    (folder / "served" / "config.json").write_text(json.dumps(facts))
    (folder / "line.png").write_bytes(FILES["gray.png"])
    shown = []

    def call(pixels, widths):
        shown.append((pixels, int(widths[0])))
        return np.zeros((1, 4, 2)), [4]

    monkeypatch.setattr("jax.export.deserialize", lambda data: SimpleNamespace(call=call))
    monkeypatch.chdir(folder)
    place = {}
    exec(compile(code, "loader", "exec"), place)

    def pixels(path):
        place["read"](path)
        return shown[-1]

    return pixels


@pytest.mark.parametrize(
    ("stretch", "vertical", "trim", "invert"),
    [(0, False, False, False), (0, True, True, True), (60, True, False, True), (0, False, True, False)],
)
def test_documented_loader_gives_the_same_pixels(stretch, vertical, trim, invert, tmp_path, monkeypatch):
    limits = Limits(stretch=stretch, vertical=vertical, trim=trim, invert=invert)
    facts = {"height": 32, "width": stretch, "least_width": 16, "vertical": vertical, "blank": 0, "classes": 2}
    facts |= {"trim": trim, "invert": invert}
    pixels = page_loader(tmp_path, monkeypatch, facts)
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
        expected = to_float(fit_height(read_gray(data, Limits(), name), 32, limits, name))
        pixel_values, width = pixels(name)
        assert width == expected.shape[1], name
        np.testing.assert_array_equal(pixel_values[0, :, :width, 0], expected, name)
        assert pixel_values.shape[2] == max(16, width)
        assert (pixel_values[0, :, width:] == 1).all()


def test_vertical_lines_are_read_from_top_to_bottom():
    gray = np.full((60, 20), 255, np.uint8)
    gray[:20] = 0  # the first character
    for vertical, shape in ((True, (32, 96)), (False, (32, 11))):
        scaled = fit_height(gray, 32, Limits(vertical=vertical))
        assert scaled.shape == shape
        assert scaled[:, :5].max() == (0 if vertical else 255)
    assert fit_height(gray.T, 32, Limits(vertical=True)).shape == (32, 96)  # a horizontal line stays as it is


def test_inverted_lines_are_those_of_the_negative():
    gray = np.random.default_rng(0).integers(0, 256, (64, 90), np.uint8)
    for limits in (Limits(), Limits(trim=True, vertical=True), Limits(reread=0.9)):
        lines = looks(gray, 32, replace(limits, invert=True))
        expected = looks(255 - gray, 32, limits)
        assert all(np.array_equal(*pair) for pair in zip(lines, expected, strict=True))
    assert DataConfig(invert=True).limits == Limits(invert=True)


def inked(height, top, bottom):
    gray = np.full((height, 40), 230, np.uint8)
    gray[top:bottom, 5:35] = 20
    gray[:, 0] -= 40  # less than 30 % of the contrast
    return gray


@pytest.mark.parametrize(
    ("height", "top", "bottom", "first", "stop"),
    [
        (60, 20, 50, 17, 53),  # a tenth of the text stays around it
        (60, 0, 60, 0, 60),
        (60, 28, 32, 15, 45),  # never less than half of the image: a dash stays a dash
        (60, 56, 60, 30, 60),  # a line at the bottom
        (61, 0, 3, 0, 31),
    ],
)
def test_empty_rows_are_trimmed(height, top, bottom, first, stop):
    gray = inked(height, top, bottom)
    assert trimmed(gray, Limits()) is gray
    np.testing.assert_array_equal(trimmed(gray, Limits(trim=True)), gray[first:stop])
    tall = np.rot90(np.repeat(gray, 4, 1), -1)
    of_tall = fit_height(np.ascontiguousarray(tall), 32, Limits(trim=True, vertical=True))
    np.testing.assert_array_equal(of_tall, fit_height(np.repeat(gray, 4, 1), 32, Limits(trim=True)))


def test_image_of_one_gray_is_not_trimmed():
    gray = np.full((60, 40), 7, np.uint8)
    assert trimmed(gray, Limits(trim=True)) is gray


def test_audit_measures_trimmed_images(tmp_path):
    Image.fromarray(inked(60, 20, 50)).save(tmp_path / "a.png")
    (tmp_path / "labels.txt").write_text("a.png\t12\n")
    for trim, width in ((False, round(40 * 32 / 60)), (True, round(40 * 32 / 36))):
        corpus = audit(LabelFile(tmp_path / "labels.txt"), Charset("12"), lambda width: 9, 32, Limits(trim=trim))
        assert corpus.widths.tolist() == [width]
        assert corpus.image(0).shape == (32, width)


def test_audit_reports_tall_lines_and_further_pages(tmp_path):
    for name in ("gray.png", "tall.png", "pages.tif", "exif6.png"):
        (tmp_path / name).write_bytes(FILES[name])
    (tmp_path / "one.png").write_bytes(FILES["tall.png"])
    (tmp_path / "labels.txt").write_text("gray.png\t12\ntall.png\t12\npages.tif\t12\nexif6.png\t12\none.png\t1\n")
    tables = {}
    for vertical in (False, True):
        limits = Limits(vertical=vertical)
        corpus = audit(LabelFile(tmp_path / "labels.txt"), Charset("12"), lambda width: 9, 32, limits)
        tables[vertical] = audit_table("x", corpus).split("\n")
        assert corpus.only(np.asarray([0])).notes == ()
    assert tables[False] == [
        "x: 5 lines, 5 usable",
        "1 image has several pages or frames; only the first is read: pages.tif",
        "2 of 5 lines are taller than wide, with two or more characters; if they are vertical, rotate them with "
        "--vertical (data.vertical=true)",
    ]
    assert tables[True][2] == "3 of 5 lines are taller than wide and are rotated (data.vertical)"
