"""LangChain and LangGraph: an agent's code calls its other tools, in the real frameworks with a scripted model."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integrations.groups import needs

pytestmark = needs("langchain")

pytest.importorskip("langchain", reason="needs langchain: pip install --group langchain")

from langchain.agents import create_agent  # noqa: E402 - after the look for it
from langchain_core.language_models.chat_models import BaseChatModel  # noqa: E402 - as above
from langchain_core.messages import AIMessage  # noqa: E402 - as above
from langchain_core.outputs import ChatGeneration, ChatResult  # noqa: E402 - as above
from langchain_core.runnables import RunnableConfig  # noqa: E402 - as above
from langchain_core.tools import ToolException, tool  # noqa: E402 - as above
from langgraph.checkpoint.memory import InMemorySaver  # noqa: E402 - as above
from langgraph.types import Command, interrupt  # noqa: E402 - as above

from wasm_sandbox.integrations.langchain import sandbox_tool  # noqa: E402 - as above


class Scripted(BaseChatModel):
    """Model that runs each code, and says at last what came back."""

    codes: list[str]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any) -> Any:
        done = sum(message.type == "tool" for message in messages)
        if done < len(self.codes):
            call = {"name": "run_python", "args": {"code": self.codes[done]}, "id": f"call{done}"}
            message = AIMessage("", tool_calls=[call])
        else:
            message = AIMessage(messages[-1].text)
        return ChatResult(generations=[ChatGeneration(message=message)])


@tool
def price(item: str, count: int = 1) -> int:
    """Price in cents."""
    if item == "gold":
        raise ToolException("there is no gold")
    return {"tea": 300, "cake": 450}[item] * count


@tool
async def later(item: str) -> str:
    """Find an item, later."""
    return item.upper()


@tool
def thread(config: RunnableConfig) -> str:
    """Id of the thread."""
    return str(config["configurable"]["thread_id"])


@tool
def ask(question: str) -> str:
    """Ask a person."""
    return str(interrupt(question))


def agent_of(*codes: str, tools: Any = (price,), checkpointer: Any = None, **options: Any) -> Any:
    return create_agent(Scripted(codes=list(codes)), tools=[sandbox_tool(tools, **options)], checkpointer=checkpointer)


def said(agent: Any, thread_id: str = "a") -> str:
    config = {"configurable": {"thread_id": thread_id}}
    return str(agent.invoke({"messages": [("user", "Go on.")]}, config)["messages"][-1].content)


def test_code_calls_the_agents_tools_and_the_answer_comes_back() -> None:
    assert said(agent_of("print('so')\nprice('tea') + price(item='cake', count=2)")) == "so\n1200"


async def test_code_awaits_tools_where_the_agent_is_awaited() -> None:
    agent = agent_of("import asyncio\nawait asyncio.gather(price('tea'), later('cake'))", tools=[price, later])
    found = await agent.ainvoke({"messages": [("user", "Go on.")]})
    assert found["messages"][-1].content == "[300, 'CAKE']"


def test_a_tool_is_given_the_configuration_of_the_call() -> None:
    assert said(agent_of("thread()", tools=[thread]), "of Ada") == "'of Ada'"


def test_the_model_sees_the_signatures_of_the_other_tools() -> None:
    description = sandbox_tool([price, later]).description
    assert "def price(item: str, count: int | None = 1)" in description
    assert "Find an item, later." in description


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("price('gold')", "there is no gold"),
        ("price()", "TypeError"),
        ("price('salt')", "KeyError"),
        ("1 / 0", "ZeroDivisionError"),
        ("while True: pass", "timeout"),
        ("'x' * 100_000", "characters left out"),
    ],
)
def test_what_goes_wrong_is_told_to_the_model(code: str, words: str) -> None:
    assert words in said(agent_of(code, limits={"timeout_seconds": 0.5}))


def test_variables_are_kept_for_a_thread_and_no_other() -> None:
    agent = agent_of("x = globals().get('x', 0) + 1", "x", keeps_state=True)
    assert [said(agent, "a"), said(agent, "b"), said(agent, "a")] == ["1", "1", "2"]


def test_without_asking_for_it_nothing_is_kept() -> None:
    assert "NameError" in said(agent_of("x = 1", "x"))


def test_the_threads_whose_variables_are_kept_are_bounded() -> None:
    agent = agent_of("x = globals().get('x', 0) + 1", "x", keeps_state=True, max_sessions=2)
    assert [said(agent, name) for name in "abcab"] == ["1", "1", "1", "1", "1"]
    assert said(agent, "b") == "2"


def test_a_tool_that_interrupts_the_graph_ends_the_code_which_begins_again_when_it_is_resumed() -> None:
    agent = agent_of("'answered ' + ask('Pay?')", tools=[ask], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "a"}}
    paused = agent.invoke({"messages": [("user", "Go on.")]}, config)
    assert [found.value for found in paused["__interrupt__"]] == ["Pay?"]
    done = agent.invoke(Command(resume="yes"), config)
    assert done["messages"][-1].content == "'answered yes'"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
