"""Report: a docstring whose first line is ``Args:`` loses the descriptions of its parameters.

The kind: a docstring in any style that begins with the section of its parameters, on the line of its quotes or below,
alone or with further sections.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from wasm_sandbox import Tool

TITLES = ["Args:", "Arguments:", "Parameters:", "Params:", "Args: "]
TEXTS = st.from_regex(r"\A[A-Za-z][a-z]{0,6}( [a-z]{1,6}){0,3}\Z")
NAMES = ["a", "b", "c"]


def described(docstring: str) -> dict[str, str | None]:
    source = f"def f(a=0, b=0, c=0):\n    '''{docstring}'''\n    return a\n"
    schema = Tool.from_source(source).json_schema
    assert schema is not None
    return {name: spec.get("description") for name, spec in schema["parameters"]["properties"].items()}


@settings(max_examples=200)
@given(st.data())
def test_each_parameter_keeps_its_description(data: st.DataObject) -> None:
    texts = {name: data.draw(TEXTS) for name in data.draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))}
    opening = data.draw(st.sampled_from(["", "\n    "]))
    kind = data.draw(st.sampled_from(["google", "typed", "continued", "numpy", "rest", "epydoc"]))
    if kind in ("google", "typed", "continued"):
        typed = " (int)" if kind == "typed" else ""
        more = "\n            and more" if kind == "continued" else ""
        title = data.draw(st.sampled_from(TITLES))
        lines = [title, *(f"        {name}{typed}: {text}{more}" for name, text in texts.items())]
        rest = data.draw(
            st.sampled_from(["", "\n\n    Returns:\n        the sum", "\n\n    Raises:\n        ValueError: no"])
        )
        texts = {name: text + ("\nand more" if more else "") for name, text in texts.items()}
    elif kind == "numpy":
        lines = ["Parameters", "    ----------"]
        lines += [f"    {name} : int\n        {text}" for name, text in texts.items()]
        rest = data.draw(st.sampled_from(["", "\n\n    Returns\n    -------\n    int\n        the sum"]))
    else:
        mark = ":" if kind == "rest" else "@"
        lines = [f"{mark}param {name}: {text}" for name, text in texts.items()]
        lines[1:] = [f"    {line}" for line in lines[1:]]
        rest = data.draw(st.sampled_from(["", f"\n    {mark}return: the sum"]))
    ending = data.draw(st.sampled_from(["", "\n    "]))
    assert described(opening + "\n".join(lines) + rest + ending) == {name: texts.get(name) for name in NAMES}


def test_a_text_that_only_looks_like_a_section_stays_the_description() -> None:
    for text in ["Args: all that there are", "Notes:\n    a: b", "Sum.\n\n    Details:\n        a: b"]:
        tool = Tool.from_source(f"def f(a=0):\n    '''{text}'''\n")
        assert tool.description
        assert described(text)["a"] is None
