"""Mistakes that the C and C++ code of plotting and images finds: exceptions as elsewhere, in the image "science"."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasm_sandbox import CodeResult, Limits, Sandbox, run_code
from wasm_sandbox.engine import FLAVOUR_IMAGES, process_engine

LIMITS = Limits(timeout_seconds=60)


def ended(code: str) -> CodeResult:
    return run_code(code, image="science", limits=LIMITS)


MISTAKES = {
    "an unsatisfiable constraint": (
        "UnsatisfiableConstraint: 1 * x + -5 <= 0 | strength = 1.001e+09",
        """
import kiwisolver as k
x, s = k.Variable("x"), k.Solver()
s.addConstraint(x >= 10)
s.addConstraint(x <= 5)
""",
    ),
    "a constraint twice": (
        "DuplicateConstraint: 1 * x + -10 >= 0 | strength = 1.001e+09 (VIOLATED)",
        """
import kiwisolver as k
x, s = k.Variable("x"), k.Solver()
c = x >= 10
s.addConstraint(c)
s.addConstraint(c)
""",
    ),
    "a constraint that is not there": (
        "UnknownConstraint: 1 * x + -10 >= 0 | strength = 1.001e+09 (VIOLATED)",
        """
import kiwisolver as k
x, s = k.Variable("x"), k.Solver()
s.removeConstraint(x >= 10)
""",
    ),
    "an edit variable twice": (
        "DuplicateEditVariable: x",
        """
import kiwisolver as k
x, s = k.Variable("x"), k.Solver()
s.addEditVariable(x, "weak")
s.addEditVariable(x, "weak")
""",
    ),
    "an edit variable that is required": (
        "BadRequiredStrength: A required strength cannot be used in this context.",
        """
import kiwisolver as k
x, s = k.Variable("x"), k.Solver()
s.addEditVariable(x, "required")
""",
    ),
    "a value for no edit variable": (
        "UnknownEditVariable: x",
        """
import kiwisolver as k
x, s = k.Variable("x"), k.Solver()
s.suggestValue(x, 3)
""",
    ),
    "contourpy: z of one dimension": (
        "TypeError: Input z must be 2D, not 1D",
        """
import contourpy, numpy as np
contourpy.contour_generator(z=np.ones(3))
""",
    ),
    "contourpy: x of another length": (
        "TypeError: Length of x (4) must match number of columns in z (3)",
        """
import contourpy, numpy as np
contourpy.contour_generator(np.ones(4), np.ones(3), np.ones((3, 3)))
""",
    ),
    "contourpy: x and y of other shapes, in C++": (
        "ValueError: x, y and z arrays must have the same shape",
        """
import contourpy._contourpy as c, numpy as np
z = np.ones((3, 3))
kinds = dict(line_type=c.LineType.SeparateCode, fill_type=c.FillType.OuterCode, z_interp=c.ZInterp.Linear)
c.SerialContourGenerator(np.ones((2, 3)), z, z, np.zeros((0, 0), bool), corner_mask=False, quad_as_tri=False, **kinds)
""",
    ),
    "contourpy: levels the wrong way": (
        "ValueError: upper_level must be larger than lower_level",
        """
import contourpy, numpy as np
contourpy.contour_generator(z=np.arange(9.).reshape(3, 3)).filled(2, 1)
""",
    ),
    "contourpy: no such chunk": (
        "ValueError: chunk_size cannot be negative",
        """
import contourpy, numpy as np
contourpy.contour_generator(z=np.arange(9.).reshape(3, 3), chunk_size=-1)
""",
    ),
    "contourpy: a line type that another algorithm has": (
        "ValueError: mpl2014 contour generator does not support line_type LineType.Separate",
        """
import contourpy, numpy as np
contourpy.contour_generator(z=np.arange(9.).reshape(3, 3), name="mpl2014", line_type="Separate")
""",
    ),
    "contourpy: logarithms of what is negative": (
        "ValueError: z values must be positive if using ZInterp.Log",
        """
import contourpy, numpy as np
contourpy.contour_generator(z=-np.arange(9.).reshape(3, 3), z_interp="Log")
""",
    ),
    "points on a line": (
        "RuntimeError: Error in qhull Delaunay triangulation calculation: singular input data",
        """
from matplotlib.tri import Triangulation
Triangulation([0, 1, 2, 3], [0, 1, 2, 3])
""",
    ),
    "equal points": (
        "ValueError: x and y arrays must consist of at least 3 unique points",
        """
from matplotlib.tri import Triangulation
Triangulation([1, 1, 1, 1], [2, 2, 2, 2])
""",
    ),
    "two points": (
        "ValueError: x and y arrays must have a length of at least 3",
        """
from matplotlib.tri import Triangulation
Triangulation([1, 2], [2, 3])
""",
    ),
    "three points of which two are equal": (
        "ValueError: x and y arrays must consist of at least 3 unique points",
        """
from matplotlib.tri import Triangulation
Triangulation([0, 1, 1], [0, 1, 1])
""",
    ),
    "points that are not finite": (
        "RuntimeError: Error in qhull Delaunay triangulation calculation: input inconsistency",
        """
from matplotlib.tri import Triangulation
Triangulation([0, 1, float('nan'), 2], [0, 1, 0, 5])
""",
    ),
    "triangles that are not there": (
        "ValueError: triangles are indices into the points and must be in the range 0 <= i < 3 but found value 7",
        """
from matplotlib.tri import Triangulation
Triangulation([0, 1, 0], [0, 0, 1], [[0, 1, 7]])
""",
    ),
    "a mask of another length": (
        "ValueError: mask array must have same length as triangles array",
        """
from matplotlib.tri import Triangulation
Triangulation([0, 1, 0], [0, 0, 1], [[0, 1, 2]], mask=[True, False])
""",
    ),
    "triangles: z of another length, in C++": (
        "ValueError: z must be a 1D array with the same length as the x and y arrays",
        """
import matplotlib._tri as t, numpy as np
from matplotlib.tri import Triangulation
t.TriContourGenerator(Triangulation([0, 1, 0], [0, 0, 1]).get_cpp_triangulation(), np.ones(5))
""",
    ),
    "triangles: levels the wrong way": (
        "ValueError: filled contour levels must be increasing",
        """
from matplotlib.tri import Triangulation
import matplotlib._tri as t, numpy as np
triangles = Triangulation([0, 1, 0], [0, 0, 1]).get_cpp_triangulation()
t.TriContourGenerator(triangles, np.ones(3)).create_filled_contour(2, 1)
""",
    ),
    "Qhull: x and y of other lengths": (
        "ValueError: x and y must be 1D arrays of the same length",
        """
import matplotlib._qhull as q, numpy as np
q.delaunay(np.ones(3), np.ones(4), False)
""",
    ),
    "a font that is empty": (
        "RuntimeError: Can not load face (invalid stream operation; error code 0x55)",
        """
import io
from matplotlib.ft2font import FT2Font
FT2Font(io.BytesIO(b""))
""",
    ),
    "a font that is none": (
        "RuntimeError: Can not load face",
        """
import io
from matplotlib.ft2font import FT2Font
FT2Font(io.BytesIO(b"no font" * 100))
""",
    ),
    "a font that is no file": (
        "TypeError: First argument must be a path to a font file or a binary-mode file object",
        """
from matplotlib.ft2font import FT2Font
FT2Font(5)
""",
    ),
    "a font whose file is text": (
        "TypeError: First argument must be a path to a font file or a binary-mode file object",
        """
import io
from matplotlib.ft2font import FT2Font
FT2Font(io.StringIO("text"))
""",
    ),
    "a font whose read fails": (
        "TypeError: First argument must be a path to a font file or a binary-mode file object",
        """
from matplotlib.ft2font import FT2Font
class F:
    def read(self, n):
        raise ZeroDivisionError("read")
    def seek(self, *a):
        pass
FT2Font(F())
""",
    ),
    "a name that ft2font lacks": (
        "AttributeError: module 'matplotlib.ft2font' has no attribute 'NO_SUCH_NAME'",
        """
import matplotlib.ft2font as f
f.NO_SUCH_NAME
""",
    ),
    "a glyph of no charmap": (
        "RuntimeError: i exceeds the available number of char maps",
        """
from matplotlib.ft2font import FT2Font
from matplotlib import font_manager as m
m.get_font(m.findfont("DejaVu Sans")).set_charmap(99)
""",
    ),
    "a glyph that is not there": (
        "RuntimeError: Could not load glyph (invalid argument; error code 0x6)",
        """
from matplotlib import font_manager as m
m.get_font(m.findfont("DejaVu Sans")).load_glyph(10**6)
""",
    ),
    "a glyph name of no glyph": (
        "RuntimeError: Could not get glyph names (invalid glyph index; error code 0x10)",
        """
from matplotlib import font_manager as m
m.get_font(m.findfont("DejaVu Sans")).get_glyph_name(10**6)
""",
    ),
    "an image of no size": (
        "ValueError: 3D input array must be RGBA with shape (M, N, 4), has trailing dimension of 7",
        """
import matplotlib._image as i, numpy as np
from matplotlib.transforms import IdentityTransform
i.resample(np.ones((2, 2, 7)), np.ones((2, 2, 7)), IdentityTransform())
""",
    ),
    "an image of one dimension": (
        "ValueError: Input array must be a 2D or 3D array",
        """
import matplotlib._image as i, numpy as np
from matplotlib.transforms import IdentityTransform
i.resample(np.ones(4), np.ones(4), IdentityTransform())
""",
    ),
    "images of other dtypes": (
        "ValueError: Input and output arrays have mismatched types",
        """
import matplotlib._image as i, numpy as np
from matplotlib.transforms import IdentityTransform
i.resample(np.ones((4, 4)), np.ones((4, 4), "f4"), IdentityTransform())
""",
    ),
    "a renderer that is too large": (
        "ValueError: Image size of 16777216x100 pixels is too large. It must be less than 2^23 in each direction.",
        """
from matplotlib.backends._backend_agg import RendererAgg
RendererAgg(2**24, 100, 72)
""",
    ),
    "a renderer of a negative size": (
        "TypeError: __init__(): incompatible constructor arguments",
        """
from matplotlib.backends._backend_agg import RendererAgg
RendererAgg(-1, 100, 72)
""",
    ),
    "a figure that is too large": (
        "ValueError: Image size of 100000000x100 pixels is too large. It must be less than 2^23 in each direction.",
        """
import matplotlib.pyplot as plt
plt.figure(figsize=(10**6, 1)).canvas.draw()
""",
    ),
    "vertices of another shape": (
        "ValueError: %s must have shape (N, %d), got (%d, %d)",
        """
import matplotlib._path as p, numpy as np
from matplotlib.path import Path
p.affine_transform(np.ones((3, 3)), np.eye(3))
""",
    ),
    "a matrix of another shape": (
        "ValueError: Invalid affine transformation matrix",
        """
import matplotlib._path as p, numpy as np
p.affine_transform(np.ones((3, 2)), np.eye(2))
""",
    ),
    "a path with a code that is none": (
        "ValueError: Invalid codes array",
        """
import numpy as np
from matplotlib.path import Path
p = Path(np.ones((3, 2)), [1, 2, 2])
p._codes = np.ones(7, 'u1')
p.contains_point((0, 0))
""",
    ),
    "a path whose transform fails": (
        "AttributeError: 'object' object has no attribute 'vertices'",
        """
import matplotlib._path as p
p.point_in_path(0, 0, 0, object(), None)
""",
    ),
    "JPEG: nothing after the head": (
        "OSError: image file is truncated",
        """
from PIL import Image
import io
f = io.BytesIO()
Image.linear_gradient('L').save(f, 'JPEG')
Image.open(io.BytesIO(f.getvalue()[:400])).load()
""",
    ),
    "JPEG: no components": (
        "OSError: broken data stream when reading image file",
        """
from PIL import Image
import io
f = io.BytesIO()
Image.linear_gradient('L').save(f, 'JPEG')
b = bytearray(f.getvalue())
b[b.index(b'\\xff\\xc0') + 11] = 0x55
Image.open(io.BytesIO(b)).load()
""",
    ),
    "JPEG: too wide to write": (
        "OSError: broken data stream when writing image file",
        """
from PIL import Image
import io
Image.new('L', (70000, 1)).save(io.BytesIO(), 'JPEG')
""",
    ),
    "JPEG: tables that are none": (
        "ValueError: None or too many quantization tables",
        """
from PIL import Image
import io
Image.new('L', (7, 1)).save(io.BytesIO(), 'JPEG', qtables=[[1] * 64] * 5)
""",
    ),
    "JPEG: a writer that fails": (
        "OSError: full",
        """
from PIL import Image
class F:
    def write(self, b):
        raise OSError('full')
Image.effect_noise((300, 300), 90).save(F(), 'JPEG')
""",
    ),
    "Pillow: a font that is none": (
        "OSError: ",
        """
from PIL import ImageFont
import io
ImageFont.truetype(io.BytesIO(b'no font' * 100))
""",
    ),
}
"""Exception, as a native CPython 3.13 raises it with the same versions (or its beginning, where a library has another
version there), and code."""


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_the_exception_that_it_is_elsewhere(name: str) -> None:
    expected, code = MISTAKES[name]
    error = ended(code).error
    assert error is not None
    assert error.kind == "tool_exception", error
    assert f"{error.exception_name}: {error.message}".startswith(expected)


JPEG = """
import io
from PIL import Image

def damaged(kind, changes, cut):
    gradient = Image.radial_gradient("L").resize((64, 48))
    file = io.BytesIO()
    Image.merge("RGB", (gradient, gradient.rotate(90), gradient.transpose(0))).save(file, "JPEG", **kind)
    data = bytearray(file.getvalue())
    for place, value in changes:
        data[place % len(data)] = value
    return bytes(data[: len(data) - cut * len(data) // 1000])

def outcome(data):
    try:
        return Image.open(io.BytesIO(data)).convert("RGB").size > (0, 0)
    except (OSError, SyntaxError, ValueError) as error:
        return type(error).__name__

KINDS = {}, {"progressive": True}, {"subsampling": 0, "restart_marker_blocks": 2}
"""
CHANGES = st.lists(st.tuples(st.integers(0, 700) | st.integers(0, 4000), st.integers(0, 255)), max_size=4)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(CHANGES, st.integers(0, 999)), min_size=1, max_size=30))
def test_a_damaged_jpeg_is_an_image_or_an_exception(damages: list[tuple[list[tuple[int, int]], int]]) -> None:
    result = ended(f"{JPEG}[outcome(damaged(kind, *damage)) for damage in {damages} for kind in KINDS]")
    assert result.error is None, result.error
    assert len(result.value) == 3 * len(damages)
    assert {*result.value} <= {True, "OSError", "SyntaxError", "UnidentifiedImageError", "ValueError"}


def test_a_jpeg_is_cut_at_each_place() -> None:
    code = "whole = damaged({}, [], 0)\nfound = [outcome(whole[:size]) for size in range(len(whole))]\n"
    result = ended(f"{JPEG}{code}[found[0], found[len(found) // 2], outcome(whole), len(found) > 900]")
    assert result.error is None, result.error
    assert result.value == ["UnidentifiedImageError", "OSError", True, True]


FONT = """
import io, warnings
from matplotlib import _data, font_manager
from matplotlib.ft2font import FT2Font

warnings.simplefilter("ignore")
whole = _data.read(font_manager.findfont("cmr10"))

def outcome(changes, cut):
    data = bytearray(whole)
    for place, value in changes:
        data[place % len(data)] = value
    try:
        font = FT2Font(io.BytesIO(data[: len(data) - cut * len(data) // 1000]))
        font.set_size(12, 72)
        font.set_text("A+", 0.0)
        font.draw_glyphs_to_bitmap()
        return font.get_image().size > 0 and len(font.get_charmap()) >= 0
    except (RuntimeError, TypeError, ValueError, UnicodeDecodeError) as error:
        return type(error).__name__
"""
PLACES = st.integers(0, 12) | st.integers(0, 400) | st.integers(0, 30_000)


DAMAGED = st.tuples(st.lists(st.tuples(PLACES, st.integers(0, 255)), max_size=3), st.just(0) | st.integers(0, 999))


@settings(max_examples=10, deadline=None)
@given(st.lists(DAMAGED, min_size=1, max_size=30))
def test_a_damaged_font_is_a_font_or_an_exception(damages: list[tuple[list[tuple[int, int]], int]]) -> None:
    result = ended(f"{FONT}[outcome(*damage) for damage in {damages}]")
    assert result.error is None, result.error
    assert len(result.value) == len(damages)


def test_old_names_of_constants_are_there_with_a_warning() -> None:
    code = """
import matplotlib.ft2font as f, warnings
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    value = int(f.KERNING_UNFITTED)
[value, [w.category.__name__ for w in said]]
"""
    assert ended(code).value == [1, ["MatplotlibDeprecationWarning"]]


@pytest.mark.parametrize("inches", [160, 330, 8000])
def test_a_figure_that_there_is_no_room_for_is_a_memory_error(inches: int) -> None:
    """The second has more bytes than a number of 32 bits says."""
    error = ended(f"import matplotlib.pyplot as plt\nplt.figure(figsize=({inches}, {inches})).canvas.draw()").error
    assert error is not None
    assert error.exception_name == "MemoryError"


def test_an_exception_of_a_callback_comes_through_c() -> None:
    """The code that is left was called from C++, which was called from Python."""
    code = """
from matplotlib.backends._backend_agg import RendererAgg
from matplotlib.transforms import IdentityTransform

class Context:
    def __getattr__(self, name):
        raise ZeroDivisionError(name)

try:
    RendererAgg(9, 9, 72).draw_path(Context(), None, IdentityTransform(), None)
except Exception as error:
    found = [type(error).__name__, str(error)]
found
"""
    assert ended(code).value == ["ZeroDivisionError", "_linewidth"]


@pytest.mark.long
def test_two_hundred_thousand_exceptions_leave_nothing_behind() -> None:
    """What is kept of each, an object and a throw, would take all room that there is."""
    code = """
import kiwisolver
solver, variable = kiwisolver.Solver(), kiwisolver.Variable("x")
for _ in range(200_000):
    try:
        solver.suggestValue(variable, 1)
    except kiwisolver.UnknownEditVariable:
        pass
"""
    least = process_engine().image(FLAVOUR_IMAGES["science"]).needed_bytes
    limits = Limits(timeout_seconds=60, memory_bytes=least)
    result = run_code(code, image="science", limits=limits)
    assert result.error is None, result.error


def test_a_session_goes_on_after_mistakes() -> None:
    with Sandbox(image="science", limits=LIMITS).session() as session:
        for _ in range(2):
            for expected, code in (MISTAKES["points on a line"], MISTAKES["JPEG: no components"]):
                error = session.run_code(code).error
                assert error is not None
                assert expected.startswith(str(error.exception_name))
            shown = session.run_code("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()").displays
            assert len(shown) == 1
