"""Host functions: declared by the caller, typed, and called by guests within budgets.

May import: values, script.
Imported by: sandbox, faces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasm_sandbox.doors import door

if TYPE_CHECKING:
    from wasm_sandbox.functions.answers import answer_of as answer_of
    from wasm_sandbox.functions.answers import pending_call as pending_call
    from wasm_sandbox.functions.calls import Deferred as Deferred
    from wasm_sandbox.functions.calls import RunCalls as RunCalls
    from wasm_sandbox.functions.catalogue import Functions as Functions
    from wasm_sandbox.functions.declared import HostFunction as HostFunction
    from wasm_sandbox.functions.declared import Parameter as Parameter
    from wasm_sandbox.functions.declared import host_function as host_function
    from wasm_sandbox.functions.gates import Deny as Deny
    from wasm_sandbox.functions.loops import private_loop as private_loop
    from wasm_sandbox.functions.loops import thread_pool as thread_pool

_HOMES = {
    "Deferred": "calls",
    "Deny": "gates",
    "Functions": "catalogue",
    "HostFunction": "declared",
    "Parameter": "declared",
    "RunCalls": "calls",
    "answer_of": "answers",
    "host_function": "declared",
    "pending_call": "answers",
    "private_loop": "loops",
    "thread_pool": "loops",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - a face lists itself once


__getattr__ = door(__name__, _HOMES)
