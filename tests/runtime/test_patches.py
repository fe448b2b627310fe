"""What the recipe's patches mend, in the guest."""

from __future__ import annotations

import pytest

from wasm_sandbox import Limits, Tool, run_tool

CPYTHON = {
    "a methodcaller in a cycle of references": (
        "import gc, operator\nd = {}\nm = operator.methodcaller('f', d)\nd['m'] = m\ndel m, d\nreturn gc.collect() >= 2"
    ),
    "a deep recursion in C": "import json\ntry: json.loads('[' * 100_000)\nexcept RecursionError: return True",
    "a frozen module has the file name of its code": (
        "import json\nreturn json.__file__ == json.loads.__code__.co_filename"
    ),
}
SCIENCE = {
    "numpy: the copy of a scalar": "import copy, numpy as np\nreturn bool(copy.copy(np.float64(2.5)) == 2.5)",
    "numpy: another dtype for an array": (
        "import numpy as np\na = np.arange(4)\na.dtype = 'u8'\nreturn str(a.dtype) == 'uint64'"
    ),
    "numpy: a file": (
        "import numpy as np\nnp.save('/a.npy', np.arange(3))\nreturn np.load('/a.npy').tolist() == [0, 1, 2]"
    ),
    "numpy: the legacy random numbers": (
        "import numpy as np\nreturn str(np.random.RandomState(0).poisson(3, 2).dtype) == 'int64'"
    ),
    "pandas: no mmap": (
        "import io, pandas as pd\ntry: pd.read_csv('/a.csv', memory_map=True)\n"
        "except ValueError as e: return 'memory_map' in str(e)"
    ),
    "pandas: leap years are its own": (
        "import pandas as pd\nreturn [d.day for d in pd.date_range('2024-01-31', periods=2, freq='ME')] == [31, 29]"
    ),
    "pandas: a warning has the line of the tool": (
        "import pandas as pd, warnings\nwith warnings.catch_warnings(record=True) as w:\n"
        "    warnings.simplefilter('always')\n    pd.to_datetime(['13/01/2024', '14/01/2024'])\n"
        "return [x.filename for x in w] == ['f.py']"
    ),
    "dateutil: time zones": (
        "from dateutil import tz\nimport datetime\n"
        "return datetime.datetime(2024, 7, 1, tzinfo=tz.gettz('Europe/Berlin')).utcoffset().total_seconds() == 7200"
    ),
}


def run(body: str, image: str | None) -> object:
    tool = Tool.from_source("def f():\n" + "".join(f"    {line}\n" for line in body.splitlines()))
    files = {"/a.csv": b"a,b\n1,2\n"}
    result = run_tool(tool, image=image, files=files, limits=Limits(memory_bytes=512 << 20))
    return result.func_return if result.status == "success" else result.error


@pytest.mark.parametrize("name", CPYTHON)
def test_what_was_wrong_in_cpython_is_right(name: str) -> None:
    assert run(CPYTHON[name], None) is True


@pytest.mark.parametrize("name", SCIENCE)
def test_what_was_wrong_in_numpy_and_pandas_is_right(name: str) -> None:
    assert run(SCIENCE[name], "science") is True
