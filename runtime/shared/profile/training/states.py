"""State that is kept and given back: pickles, copies, marshalled and packed data, lists, sets and dicts in bulk."""

import copy
import io
import marshal
import pickle
import zlib
from array import array
from collections import ChainMap, UserDict, defaultdict
from datetime import datetime, timedelta
from types import MappingProxyType, SimpleNamespace


class Node:
    def __init__(self, name, parent=None):
        self.name, self.parent, self.children = name, parent, []
        if parent:
            parent.children.append(self)


class Settings(UserDict):
    def __missing__(self, key):
        self[key] = value = f"default of {key}"
        return value

    def __reduce__(self):
        return Settings, (dict(self.data),)


class Plain(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) in {("builtins", "set"), ("builtins", "frozenset")}:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name}")


def state(size):
    root = Node("root")
    nodes = [Node(f"node {n}", root) for n in range(size // 10)]
    return {
        "records": [
            {"id": n, "name": f"näme {n}", "ratio": n / 7, "big": n**9, "tags": ("a", None, n % 2 == 0)}
            for n in range(size)
        ],
        "nodes": nodes,
        "when": [datetime(2026, 1, 1) + timedelta(hours=n) for n in range(size // 5)],
        "sets": [frozenset(range(n % 20)) for n in range(size // 5)],
        "bytes": bytes(range(256)) * 8,
        "space": SimpleNamespace(a=1, b=[1, 2]),
        "settings": Settings(a=1),
        "groups": defaultdict(list, {n: [n] for n in range(50)}),
        "shared": [nodes[0]] * 20,
    }


def main():
    value = state(600)
    data = pickle.dumps(value, protocol=5)
    again = pickle.loads(data)
    plain = {f"k{n}": [n, str(n)] for n in range(1500)}
    plain["a"] = [1, 2.5, "x", None, True, {1, 2}, b"y", (1, (2, (3,)))]
    kept = Plain(io.BytesIO(pickle.dumps(plain))).load()
    try:
        Plain(io.BytesIO(data)).load()
    except pickle.UnpicklingError:
        kept["refused"] = True
    deep, shallow = copy.deepcopy(again["records"][:200]), copy.copy(again)
    packed = zlib.decompress(zlib.compress(marshal.dumps(plain), 6))
    back = marshal.loads(packed)
    numbers = array("d", (n / 3 for n in range(2000)))
    view = memoryview(numbers.tobytes()).cast("d")
    total = sum(view[::3]) + len(shallow)
    levels = ChainMap({"a": 1}, back, MappingProxyType(plain))
    hits = sum(key in levels for key in ("a", "k7", "z")) + len(levels)
    left, right = set(back), {f"k{n}" for n in range(0, 3000, 2)}
    sets = len(left & right), len(left | right), len(left ^ right), left <= right
    rows = [list(range(n % 30)) for n in range(800)]
    for row in rows:
        row.extend(row[:5])
        row.insert(1, -1)
        row.reverse()
        if len(row) > 3:
            del row[1:3]
            row.pop()
        row.sort()
    flat = [x for row in rows for x in row if x not in (3, 4)]
    counts = {}
    for x in flat:
        counts[x] = counts.get(x, 0) + 1
    inverted = {v: k for k, v in counts.items()}
    for key in list(counts):
        if key % 2:
            counts.pop(key)
    same = kept.keys() - plain.keys(), back == plain, deep == value["records"][:200]
    return total, hits, sets, len(flat), inverted, counts, same, again["settings"]["b"]


for _ in range(12):
    main()
