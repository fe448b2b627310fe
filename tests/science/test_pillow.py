"""Pillow in the image "science": formats, drawing, and images as displays and results."""

from __future__ import annotations

import struct

import pytest

from wasm_sandbox import CodeResult, Limits, Tool, run_code, run_tool

HEAD = """
import io
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps
image = Image.new("RGB", (200, 100), (200, 30, 30))
draw = ImageDraw.Draw(image)
draw.ellipse((10, 10, 80, 80), fill=(0, 0, 255))
"""


def ended(code: str, **options: object) -> CodeResult:
    result = run_code(HEAD + code, image="science", **options)  # type: ignore[arg-type]
    assert result.error is None, result.error
    return result


@pytest.mark.parametrize(
    ("kind", "options", "near"),
    [("PNG", "", 0), ("GIF", "", 0), ("BMP", "", 0), ("TIFF", "", 0), ("JPEG", ", quality=95", 12),
     ("WEBP", ", lossless=True", 0), ("WEBP", ", quality=95", 20)],
)  # fmt: skip
def test_an_image_comes_back_from_each_format(kind: str, options: str, near: int) -> None:
    code = f"""
file = io.BytesIO()
image.save(file, {kind!r}{options})
back = Image.open(io.BytesIO(file.getvalue()))
[back.format, back.size, *(back.convert("RGB").getpixel(at) for at in ((40, 40), (150, 50)))]
"""
    found, size, *pixels = ended(code).value
    assert (found, size) == (kind, (200, 100))
    for pixel, drawn in zip(pixels, ((0, 0, 255), (200, 30, 30)), strict=True):
        assert max(abs(a - b) for a, b in zip(pixel, drawn, strict=True)) <= near


def test_images_are_scaled_turned_and_filtered() -> None:
    code = """
small = image.resize((50, 25), Image.Resampling.LANCZOS)
turned = small.rotate(90, expand=True).filter(ImageFilter.GaussianBlur(1))
[small.size, turned.size, ImageOps.grayscale(turned).mode, image.crop((30, 30, 50, 50)).getcolors()]
"""
    assert ended(code).value == [(50, 25), (25, 50), "L", [(400, (0, 0, 255))]]


def test_text_is_drawn_with_the_font_that_is_there() -> None:
    code = """
font = ImageFont.load_default(24)
before = image.tobytes()
draw.text((90, 20), "Hello", font=font, fill="white")
colours = {colour for _, colour in image.getcolors(9999)}
[image.tobytes() != before, draw.textlength("Hello", font=font) > 40, (255, 255, 255) in colours]
"""
    assert ended(code).value == [True, True, True]


def test_an_image_as_last_value_is_shown() -> None:
    png = ended("image").displays[0]["image/png"]
    assert isinstance(png, bytes)
    assert struct.unpack(">II", png[16:24]) == (200, 100)


def test_files_of_a_run_and_arrays() -> None:
    code = """
import numpy as np
image.save("/tmp/x.png")
array = np.asarray(Image.open("/tmp/x.png"))
[array.shape, str(array.dtype), Image.fromarray(array[::-1].copy()).getpixel((0, 0))]
"""
    assert ended(code).value == [(100, 200, 3), "uint8", (200, 30, 30)]


def test_a_tool_returns_the_bytes_of_an_image() -> None:
    tool = Tool.from_source(
        f"{HEAD}def f() -> bytes:\n    file = io.BytesIO()\n    image.save(file, 'PNG')\n    return file.getvalue()"
    )
    result = run_tool(tool, image="science")
    assert result.status == "success", result.error
    assert result.func_return.startswith(b"\x89PNG\r\n")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_a_file_that_is_cut_short_is_an_exception(kind: str) -> None:
    code = f"""
file = io.BytesIO()
image.save(file, {kind!r})
try:
    Image.open(io.BytesIO(file.getvalue()[:-60])).load()
except (OSError, SyntaxError, ValueError, EOFError) as error:
    found = str(error)
found
"""
    assert ended(code).value


def test_what_is_no_image_is_an_exception() -> None:
    result = run_code(f"{HEAD}Image.open(io.BytesIO(b'no image'))", image="science")
    assert result.error is not None
    assert result.error.exception_name == "UnidentifiedImageError"


def test_a_great_image_wants_memory() -> None:
    result = run_code(
        f"{HEAD}Image.new('RGB', (30_000, 30_000))", image="science", limits=Limits(memory_bytes=256 << 20)
    )
    assert result.error is not None
    assert result.error.exception_name == "MemoryError" or result.error.kind == "out_of_memory"
