"""Packages of the index that tools use, each with a tool that uses it for what it is there for.

`tests/images/test_real_packages.py` runs them, and ``python -m tests.images.packages_table`` writes
``docs/packages.md`` from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """A tool, what it requires and what it must return."""

    requirements: tuple[str, ...]
    source: str
    expected: Any
    args: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] | None = None
    """A file system for the run, if it needs one."""
    remark: str = ""
    is_big: bool = False
    """Prepared apart from the others in the tests, for the time and memory that it takes."""

    @property
    def name(self) -> str:
        return " + ".join(self.requirements)


CASES = (
    Case(
        ("jinja2", "markupsafe"),
        """
def letter(name: str, items: list) -> str:
    from jinja2 import Environment
    template = Environment(autoescape=True).from_string(
        "Dear {{ name|title }},{% for item in items %} {{ loop.index }}. {{ item }}{% endfor %}"
    )
    return template.render(name=name, items=items)
""",
        "Dear Ada, 1. &lt;b&gt; 2. x",
        {"name": "ada", "items": ["<b>", "x"]},
        remark="markupsafe is published compiled only; it goes in without its compiled module, which it does not need",
    ),
    Case(
        ("pyyaml",),
        """
def ports(text: str) -> dict:
    import yaml
    services = yaml.safe_load(text)["services"]
    assert yaml.safe_load(yaml.safe_dump(services)) == services
    return {name: service["port"] for name, service in services.items()}
""",
        {"web": 80, "db": 5432},
        {"text": "services:\n  web: {port: 80}\n  db:\n    port: 5432\n"},
        remark="published compiled only; it goes in without its binding to libyaml, which it does not need",
    ),
    Case(
        ("python-dateutil",),
        """
def fridays(start: str) -> list:
    from dateutil import parser, rrule, tz
    from dateutil.relativedelta import relativedelta
    first = parser.parse(start).replace(tzinfo=tz.gettz("Europe/Berlin"))
    until = first + relativedelta(weeks=+2)
    return [day.isoformat() for day in rrule.rrule(rrule.WEEKLY, byweekday=rrule.FR, dtstart=first, until=until)]
""",
        ["2024-03-29T09:00:00+01:00", "2024-04-05T09:00:00+02:00"],
        {"start": "March 25, 2024 9am"},
    ),
    Case(
        ("sympy",),
        """
def solve(text: str) -> list:
    import sympy
    x = sympy.symbols("x")
    expression = sympy.sympify(text)
    return [str(sympy.factor(expression)), [str(root) for root in sympy.solve(expression, x)],
            str(sympy.integrate(expression, x))]
""",
        ["(x - 2)*(x - 1)", ["1", "2"], "x**3/3 - 3*x**2/2 + 2*x"],
        {"text": "x**2 - 3*x + 2"},
        remark="it asks ctypes how wide a C long is: a stand-in that answers just that goes in with it; "
        "its images need `memory_bytes` of about 140 MiB or more",
        is_big=True,
    ),
    Case(
        ("networkx",),
        """
def route(roads: list, start: str, end: str) -> list:
    import networkx
    graph = networkx.Graph()
    graph.add_weighted_edges_from(roads)
    return [networkx.shortest_path(graph, start, end, weight="weight"), networkx.number_connected_components(graph)]
""",
        [["a", "b", "c"], 1],
        {"roads": [["a", "b", 1], ["b", "c", 1], ["a", "c", 5]], "start": "a", "end": "c"},
        remark="without numpy and scipy: what needs them fails with ImportError",
    ),
    Case(
        ("beautifulsoup4", "html5lib"),
        """
def links(html: str) -> list:
    from bs4 import BeautifulSoup
    page = BeautifulSoup(html, "html5lib")
    return [(a["href"], a.get_text(strip=True)) for a in page.select("td > a[href]")]
""",
        [("/x", "one"), ("/y", "two")],
        {"html": "<table><td><a href=/x> one<td><a href='/y'><b>two</b></a><a>no</a></table>"},
    ),
    Case(
        ("openpyxl",),
        """
def total(rows: list) -> list:
    import io
    import openpyxl
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    stored = io.BytesIO()
    book.save(stored)
    sheet = openpyxl.load_workbook(io.BytesIO(stored.getvalue())).active
    return [stored.getvalue()[:2], sum(row[1] for row in sheet.iter_rows(min_row=2, values_only=True))]
""",
        [b"PK", 30],
        {"rows": [["name", "n"], ["a", 10], ["b", 20]]},
        {"/tmp/.keep": b""},
        remark='writing takes a directory for temporary files: give the run one, `files={"/tmp/.keep": b""}`',
    ),
    Case(
        ("tabulate",),
        """
def table(rows: list) -> str:
    from tabulate import tabulate
    return tabulate(rows, headers=["name", "n"], tablefmt="github")
""",
        "| name   |   n |\n|--------|-----|\n| a      |   1 |",
        {"rows": [["a", 1]]},
    ),
    Case(
        ("more-itertools",),
        """
def batches(n: int) -> list:
    import more_itertools
    return [list(batch) for batch in more_itertools.chunked(range(n), 2)]
""",
        [[0, 1], [2, 3], [4]],
        {"n": 5},
    ),
    Case(
        ("attrs",),
        """
def point(x: str) -> dict:
    import attrs

    @attrs.define
    class Point:
        x: int = attrs.field(converter=int, validator=attrs.validators.ge(0))
        y: int = 0

    try:
        Point(-1)
    except ValueError:
        return attrs.asdict(Point(x))
""",
        {"x": 3, "y": 0},
        {"x": "3"},
    ),
    Case(
        ("jsonschema",),
        """
def faults(value: dict) -> list:
    import jsonschema
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "required": ["n", "name"]}
    found = jsonschema.Draft202012Validator(schema).iter_errors(value)
    return sorted(error.message for error in found)
""",
        ["'name' is a required property", "0 is less than the minimum of 1"],
        {"value": {"n": 0}},
        remark="resolves to 4.17, the last version without the compiled rpds-py",
    ),
    Case(
        ("lark",),
        """
def calculate(text: str) -> float:
    import lark
    grammar = '''
        ?sum: product | sum "+" product -> add
        ?product: NUMBER -> number | product "*" NUMBER -> mul
        %import common.NUMBER
        %ignore " "
    '''

    @lark.v_args(inline=True)
    class Calculator(lark.Transformer):
        number = float
        def add(self, a, b):
            return a + b
        def mul(self, a, b):
            return a * float(b)

    return Calculator().transform(lark.Lark(grammar, start="sum").parse(text))
""",
        26.0,
        {"text": "2 + 3 * 8"},
    ),
)

REFUSED = (
    ("numpy", "compiled: it is in the image [science](science.md)"),
    ("pandas", "compiled: it is in the image [science](science.md)"),
    ("pillow", "compiled: it is in the image [science](science.md)"),
    ("matplotlib", "compiled: it is in the image [science](science.md)"),
    ("lxml", "compiled: it is in the image [science](science.md)"),
    ("orjson", "compiled: it is in the image [science](science.md)"),
    ("regex", "compiled: it is in the image [science](science.md)"),
    ("scipy", "compiled, and not in [science](science.md#what-is-not-in-it) yet"),
    ("scikit-learn", "compiled, and it wants scipy"),
    ("statsmodels", "compiled, and it wants scipy"),
    ("cryptography", "compiled; hashlib and hmac of the standard library are there"),
)
"""Packages that no image can have, and why."""
