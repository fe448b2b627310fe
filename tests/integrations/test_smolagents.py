"""smolagents: an agent's code calls its other tools, in the real framework with a model that follows a script."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integrations.groups import needs
from tests.support.documents import ROOT

pytestmark = needs("smolagents")

smolagents = pytest.importorskip("smolagents", reason="needs smolagents: pip install --group smolagents")

from smolagents import Model, tool  # noqa: E402 - after the look for it


class Scripted(Model):
    """Model that says what it is told to, and keeps what it was asked."""

    def __init__(self, *codes: str) -> None:
        super().__init__(model_id="scripted")
        self._codes = iter(codes)
        self.asked: list[str] = []

    def generate(self, messages: Any, **_: Any) -> Any:
        self.asked.append(str([message.content for message in messages[1:]]))
        content = f"Thought: so.\n<code>\n{next(self._codes)}\n</code>"
        return smolagents.ChatMessage(role="assistant", content=content)


@tool
def price(item: str, currency: str | None = None) -> int:
    """Price of an item in cents.

    Args:
        item: what is bought.
        currency: in which currency.
    """
    if item == "gold":
        raise ValueError("there is no gold")
    return {"tea": 300, "cake": 450}[item]


def agent_of(model: Scripted, **options: Any) -> Any:
    from wasm_sandbox.integrations.smolagents import WasmExecutor

    executor = WasmExecutor(**options.pop("executor", {}))
    return smolagents.CodeAgent([price], model, executor=executor, verbosity_level=0, max_steps=4, **options)


@pytest.fixture
def closing() -> Iterator[list[Any]]:
    agents: list[Any] = []
    yield agents
    for agent in agents:
        agent.cleanup()


def test_code_calls_the_agents_tools_and_the_answer_comes_back(closing: list[Any]) -> None:
    model = Scripted("total = price('tea') + price(item='cake')\nprint(total)", "final_answer({'cents': total})")
    agent = agent_of(model)
    closing.append(agent)
    assert agent.run("What do tea and cake cost?") == {"cents": 750}
    assert "750" in model.asked[1]


def test_an_error_is_told_to_the_model_with_what_was_printed_before(closing: list[Any]) -> None:
    model = Scripted(
        "print('so far')\nprice('gold')", "print(missing)", "import os\nos.listdir('/home')", "final_answer(1)"
    )
    agent = agent_of(model)
    closing.append(agent)
    assert agent.run("Buy gold.") == 1
    assert "so far" in model.asked[1]
    assert "there is no gold" in model.asked[1]
    assert "NameError" in model.asked[2]
    assert "FileNotFoundError" in model.asked[3]


def test_no_except_of_the_code_catches_the_final_answer(closing: list[Any]) -> None:
    code = "try:\n    final_answer(7)\nexcept Exception:\n    print('caught')"
    agent = agent_of(Scripted(code))
    closing.append(agent)
    assert agent.run("Say seven.") == 7


def test_additional_arguments_are_variables(closing: list[Any]) -> None:
    agent = agent_of(Scripted("final_answer(sum(rows))"))
    closing.append(agent)
    assert agent.run("Add them.", additional_args={"rows": [1, 2, 3]}) == 6


def test_a_managed_agent_is_a_function(closing: list[Any]) -> None:
    helper = smolagents.CodeAgent(
        [], Scripted("final_answer('42 apples')"), name="counter", description="Counts.", verbosity_level=0
    )
    agent = agent_of(Scripted("final_answer(counter('How many?'))"), managed_agents=[helper])
    closing.append(agent)
    assert "42 apples" in agent.run("Count.")


def test_a_limit_ends_a_step_and_takes_its_variables_back(closing: list[Any]) -> None:
    model = Scripted("x = 1", "x = 2\nwhile True: pass", "final_answer(x)")
    agent = agent_of(model, executor={"limits": {"timeout_seconds": 0.5}})
    closing.append(agent)
    assert agent.run("Hurry.") == 1
    assert "The variables are what they were before this code." in model.asked[2]


def test_values_beyond_json_reach_the_agent_with_their_types(closing: list[Any]) -> None:
    import datetime

    agent = agent_of(Scripted("import datetime\nfinal_answer((datetime.date(2026, 3, 1), {1, 2}))"))
    closing.append(agent)
    assert agent.run("When?") == (datetime.date(2026, 3, 1), {1, 2})


def test_cleaning_up_forgets_the_variables() -> None:
    agent = agent_of(Scripted("x = 1\nfinal_answer(x)", "final_answer('x' in globals())"))
    assert agent.run("One.") == 1
    agent.cleanup()
    assert agent.run("Two.", reset=False) is False
    agent.cleanup()


def test_its_code_is_not_run_in_this_process(closing: list[Any]) -> None:
    agent = agent_of(Scripted("import os, sys\nfinal_answer([sys.platform, os.environ.get('PATH')])"))
    closing.append(agent)
    assert agent.run("Where are you?") == ["wasi", None]


@pytest.mark.parametrize("document", ["README.md", "docs/integrations.md"])
def test_what_the_documents_show_works(document: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    code = "is_prime = lambda n: all(n % d for d in range(2, n))\nfinal_answer(sum(map(is_prime, range(2, 1000))))"
    monkeypatch.setattr(smolagents, "InferenceClientModel", lambda: Scripted(code))
    text = (ROOT / document).read_text(encoding="utf-8").partition("```py\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(text, names)
    names["agent"].cleanup()
    assert capsys.readouterr().out.splitlines()[-1] == "168"
