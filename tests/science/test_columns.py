"""Columns that come and go: where pandas keeps indices beside each other, they stay indices (32 bits in the guest)."""

from __future__ import annotations

import pytest

from wasm_sandbox import run_code

HEAD = """
import numpy as np, pandas as pd
d = pd.DataFrame({"a": [1, 2], "b": [1.5, 2.5], "c": ["x", "y"]})
d["end"] = [True, False]
d.insert(0, "first", [5, 6])
d.insert(2, "middle", [7.0, 8.0])
"""
CASES = {
    "d.set_index('end').columns.tolist()": ["first", "a", "middle", "b", "c"],
    "d.pop('first').tolist() + d.columns.tolist()": [5, 6, "a", "middle", "b", "c", "end"],
    "d.drop(columns=['a', 'c']).columns.tolist()": ["first", "middle", "b", "end"],
    "d.__delitem__('middle') or d.iloc[0].tolist()": [5, 1, 1.5, "x", True],
    "d[['end', 'a']].iloc[1].tolist()": [False, 2],
    "d.assign(z=d.a + d.first).set_index(['z', 'a']).first.tolist()": [5, 6],
    "d.reindex(columns=['b', 'no', 'a']).iloc[1, [0, 2]].tolist()": [2.5, 2],
    "d.select_dtypes('number').sum().tolist()": [11, 3, 15.0, 4.0],
    "pd.concat([d, d.rename(columns=str.upper)], axis=1).shape": (2, 12),
    "d.merge(d[['a', 'end']], on='a').columns.tolist()[-2:]": ["end_x", "end_y"],
    "d.groupby('c')[['first', 'middle']].sum().loc['y'].tolist()": [6.0, 8.0],
    "d.melt(id_vars='c', value_vars=['first', 'a']).value.tolist()": [5, 6, 1, 2],
    "d.pivot(index='a', columns='c', values='middle').sum().tolist()": [7.0, 8.0],
    "d.isna().sum().sum()": 0,
    "d.T.loc['middle'].tolist()": [7.0, 8.0],
    "d.copy().loc[:, ::-1].columns[0]": "end",
    "d.sort_values('first', ascending=False).reset_index().set_index('index').a.tolist()": [2, 1],
}


@pytest.mark.parametrize("expression", CASES)
def test_a_table_whose_columns_were_inserted_is_like_any_other(expression: str) -> None:
    result = run_code(HEAD + expression, image="science")
    assert result.error is None, result.error
    assert result.value == CASES[expression]
