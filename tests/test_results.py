"""Results that are made without being checked are those that pydantic makes."""

from typing import Any

from wasm_sandbox import CodeResult, Sandbox, Tool, ToolExecutionResult, Usage, run_code, run_tool
from wasm_sandbox.results import amend, made


def test_a_model_that_is_made_whole_is_the_one_that_pydantic_constructs() -> None:
    for kind in (Usage, CodeResult, ToolExecutionResult):
        fields: dict[str, Any] = dict.fromkeys(kind.model_fields, 1)
        last = list(fields)[-1]
        ours = made(kind, dict(fields), frozenset({last}))
        known = kind.model_construct(**{name: value for name, value in fields.items() if name != last})
        amend(ours, {"fuel" if kind is Usage else "status": 2})
        known = known.model_copy(update={"fuel" if kind is Usage else "status": 2, last: 1})
        assert ours.model_fields_set == known.model_fields_set - {last}
        assert repr(ours) == repr(known)
        assert ours.model_copy() == ours


def test_results_of_runs_have_all_fields_in_order_and_can_be_written_and_read() -> None:
    tool = Tool.from_source("def f(): return [1, 'x']")
    with Sandbox().session() as session:
        for result in (run_code("1"), run_code("1 / 0"), session.run_code("1"), run_tool(tool), session.run_tool(tool)):
            assert list(result.__dict__) == list(type(result).model_fields)
            assert result.usage is not None
            assert list(result.usage.__dict__) == list(Usage.model_fields)
            assert type(result).model_validate_json(result.model_dump_json(warnings="error")) == result
