"""What ``wasm-sandbox bench`` measures, and how: this library against the programs that run Python otherwise.

May import: faces, values, script, decode, images, engine.
Imported by: cli.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasm_sandbox.doors import door

if TYPE_CHECKING:
    from wasm_sandbox.bench.breakdown import take_breakdown as take_breakdown
    from wasm_sandbox.bench.contenders import local_contenders as local_contenders
    from wasm_sandbox.bench.harness import ForeignContenders as ForeignContenders
    from wasm_sandbox.bench.harness import HarnessError as HarnessError
    from wasm_sandbox.bench.measure import Contender as Contender
    from wasm_sandbox.bench.measure import machine as machine
    from wasm_sandbox.bench.measure import side_by_side as side_by_side
    from wasm_sandbox.bench.measure import versions as versions
    from wasm_sandbox.bench.plot import PlotUnavailable as PlotUnavailable
    from wasm_sandbox.bench.plot import check_available as check_available
    from wasm_sandbox.bench.plot import draw as draw
    from wasm_sandbox.bench.report import Report as Report

_HOMES = {
    "Contender": "measure",
    "ForeignContenders": "harness",
    "HarnessError": "harness",
    "PlotUnavailable": "plot",
    "Report": "report",
    "check_available": "plot",
    "draw": "plot",
    "local_contenders": "contenders",
    "machine": "measure",
    "side_by_side": "measure",
    "take_breakdown": "breakdown",
    "versions": "measure",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - a face lists itself once


__getattr__ = door(__name__, _HOMES)
