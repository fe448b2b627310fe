"""Ways to recurse, and texts that nest, with the depth that native CPython 3.13 reaches by default.

Measured with 3.13.0 on Linux with a stack of 8 MiB: the largest depth that ends well, found to one percent.
"""

from __future__ import annotations

# Source that defines ``go(n)``, which recurses n levels deep.
PATHS: dict[str, tuple[int, str]] = {
    "plain": (992, "def go(n):\n    return 0 if n <= 0 else 1 + go(n - 1)"),
    "lru_cache": (
        992,
        "import functools\n@functools.lru_cache(None)\ndef go(n):\n    return 0 if n <= 0 else 1 + go(n - 1)",
    ),
    "cache_cls": (
        992,
        "import functools\n"
        "class C:\n"
        "    @functools.cache\n"
        "    def f(self, n):\n"
        "        return 0 if n <= 0 else 1 + self.f(n - 1)\n"
        "go = C().f",
    ),
    "wraps": (
        496,
        "import functools\n"
        "def deco(f):\n"
        "    @functools.wraps(f)\n"
        "    def w(*a, **k):\n"
        "        return f(*a, **k)\n"
        "    return w\n"
        "@deco\n"
        "def go(n):\n"
        "    return 0 if n <= 0 else 1 + go(n - 1)",
    ),
    "__call__": (
        992,
        "class C:\n    def __call__(self, n):\n        return 0 if n <= 0 else 1 + self(n - 1)\ngo = C()",
    ),
    "__call__kw": (
        992,
        "class C:\n    def __call__(self, n, **kw):\n        return 0 if n <= 0 else 1 + self(n - 1, **kw)\ngo = C()",
    ),
    "__missing__": (
        992,
        "class D(dict):\n"
        "    def __missing__(self, n):\n"
        "        return 0 if n <= 0 else 1 + self[n - 1]\n"
        "def go(n): return D()[n]",
    ),
    "__getitem__": (
        992,
        "class D:\n"
        "    def __getitem__(self, n):\n"
        "        return 0 if n <= 0 else 1 + self[n - 1]\n"
        "def go(n): return D()[n]",
    ),
    "__getattr__": (
        992,
        "class D:\n"
        "    def __getattr__(self, n):\n"
        "        n = int(n[1:])\n"
        "        return 0 if n <= 0 else 1 + getattr(self, f'a{n-1}')\n"
        "def go(n): return getattr(D(), f'a{n}')",
    ),
    "__getattribute__": (
        992,
        "class D:\n"
        "    def __getattribute__(self, n):\n"
        "        n = int(n[1:])\n"
        "        return 0 if n <= 0 else 1 + getattr(self, f'a{n-1}')\n"
        "def go(n): return getattr(D(), f'a{n}')",
    ),
    "property": (
        992,
        "class P:\n"
        "    def __init__(self, n): self.n = n\n"
        "    @property\n"
        "    def v(self):\n"
        "        return 0 if self.n <= 0 else 1 + P(self.n - 1).v\n"
        "def go(n): return P(n).v",
    ),
    "cached_property": (
        496,
        "import functools\n"
        "class P:\n"
        "    def __init__(self, n): self.n = n\n"
        "    @functools.cached_property\n"
        "    def v(self):\n"
        "        return 0 if self.n <= 0 else 1 + P(self.n - 1).v\n"
        "def go(n): return P(n).v",
    ),
    "descriptor": (
        992,
        "class G:\n"
        "    def __get__(self, o, t):\n"
        "        return 0 if o.n <= 0 else 1 + P(o.n - 1).v\n"
        "class P:\n"
        "    v = G()\n"
        "    def __init__(self, n): self.n = n\n"
        "def go(n): return P(n).v",
    ),
    "partial": (
        992,
        "import functools\n"
        "def f(k, n):\n"
        "    return 0 if n <= 0 else 1 + functools.partial(f, k)(n - 1)\n"
        "def go(n): return f(1, n)",
    ),
    "partialmethod": (
        992,
        "import functools\n"
        "class C:\n"
        "    def f(self, k, n):\n"
        "        return 0 if n <= 0 else 1 + self.g(n - 1)\n"
        "    g = functools.partialmethod(f, 1)\n"
        "def go(n): return C().g(n)",
    ),
    "singledispatch": (
        496,
        "import functools\n"
        "@functools.singledispatch\n"
        "def go(n): pass\n"
        "@go.register\n"
        "def _(n: int):\n"
        "    return 0 if n <= 0 else 1 + go(n - 1)",
    ),
    "reduce": (
        496,
        "import functools\n"
        "def go(n):\n"
        "    return 0 if n <= 0 else functools.reduce(lambda a, b: a + go(n - 1), [1, 1])",
    ),
    "map": (992, "def go(n):\n    return 0 if n <= 0 else 1 + list(map(go, [n - 1]))[0]"),
    "filter": (992, "def go(n):\n    return 0 if n <= 0 else len(list(filter(go, [n - 1])))"),
    "sorted key": (992, "def go(n):\n    if n > 0: sorted([n - 1], key=go)\n    return n"),
    "max": (992, "def go(n):\n    if n > 0: max([n - 1], key=go)\n    return n"),
    "sum gen": (496, "def go(n):\n    return 0 if n <= 0 else 1 + sum(go(m) for m in [n - 1])"),
    "any gen": (496, "def go(n):\n    return n <= 0 or any(go(m) for m in [n - 1])"),
    "join gen": (496, "def go(n):\n    return '' if n <= 0 else ''.join(go(m) + 'x' for m in [n - 1])"),
    "list comp": (992, "def go(n):\n    return 0 if n <= 0 else 1 + [go(m) for m in [n - 1]][0]"),
    "yield from": (
        992,
        "def g(n):\n    if n > 0: yield from g(n - 1)\n    yield n\ndef go(n):\n    for _ in g(n): pass",
    ),
    "for gen": (
        992,
        "def g(n):\n"
        "    if n > 0:\n"
        "        for x in g(n - 1): yield x\n"
        "    yield n\n"
        "def go(n):\n"
        "    for _ in g(n): pass",
    ),
    "await": (
        992,
        "async def g(n):\n"
        "    return 0 if n <= 0 else 1 + await g(n - 1)\n"
        "def go(n):\n"
        "    try: g(n).send(None)\n"
        "    except StopIteration: pass",
    ),
    "getattr fn": (
        992,
        "class A:\n    def f(self, n): return 0 if n <= 0 else 1 + getattr(self, 'f')(n - 1)\ngo = A().f",
    ),
    "super": (
        496,
        "class A:\n"
        "    def f(self, n): return 0 if n <= 0 else 1 + type(self)().f(n - 1)\n"
        "class B(A):\n"
        "    def f(self, n): return super().f(n)\n"
        "go = B().f",
    ),
    "__init__": (500, "class A:\n    def __init__(self, n):\n        if n > 0: A(n - 1)\ngo = A"),
    "__new__": (
        992,
        "class A:\n    def __new__(cls, n):\n        if n > 0: A(n - 1)\n        return object.__new__(cls)\ngo = A",
    ),
    "metaclass call": (
        992,
        "class M(type):\n"
        "    def __call__(cls, n):\n"
        "        return 0 if n <= 0 else 1 + cls(n - 1)\n"
        "class go(metaclass=M): pass",
    ),
    "__eq__": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __eq__(s, o): return s.n <= 0 or E(s.n - 1) == E(s.n - 1)\n"
        "def go(n): E(n) == E(n)",
    ),
    "__lt__": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __lt__(s, o): return s.n <= 0 or E(s.n - 1) < E(s.n - 1)\n"
        "def go(n): E(n) < E(n)",
    ),
    "__lt__ sorted": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __lt__(s, o):\n"
        "        if s.n > 0: sorted([E(s.n - 1), E(s.n - 1)])\n"
        "        return True\n"
        "def go(n): E(n) < E(n)",
    ),
    "total_ordering": (
        496,
        "import functools\n"
        "@functools.total_ordering\n"
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __eq__(s, o): return True\n"
        "    def __lt__(s, o): return s.n <= 0 or E(s.n - 1) >= E(s.n - 1)\n"
        "def go(n): E(n) < E(n)",
    ),
    "cmp_to_key": (
        992,
        "import functools\n"
        "def c(a, b):\n"
        "    if a > 0: sorted([a - 1, a - 1], key=functools.cmp_to_key(c))\n"
        "    return 0\n"
        "def go(n): sorted([n, n], key=functools.cmp_to_key(c))",
    ),
    "__hash__": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __hash__(s): return 1 if s.n <= 0 else hash(E(s.n - 1))\n"
        "def go(n): hash(E(n))",
    ),
    "__hash__ set": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __hash__(s): return 1 if s.n <= 0 else len({E(s.n - 1)})\n"
        "def go(n): hash(E(n))",
    ),
    "__add__": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __add__(s, o): return 1 if s.n <= 0 else E(s.n - 1) + 1\n"
        "def go(n): E(n) + 1",
    ),
    "__radd__": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __radd__(s, o): return 1 if s.n <= 0 else 1 + E(s.n - 1)\n"
        "def go(n): 1 + E(n)",
    ),
    "__bool__": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __bool__(s): return s.n <= 0 or bool(E(s.n - 1))\n"
        "def go(n): bool(E(n))",
    ),
    "__len__": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __len__(s): return 0 if s.n <= 0 else len(E(s.n - 1)) + 1\n"
        "def go(n): len(E(n))",
    ),
    "__iter__": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __iter__(s): return iter([] if s.n <= 0 else list(E(s.n - 1)))\n"
        "def go(n): list(E(n))",
    ),
    "__next__": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __iter__(s): return s\n"
        "    def __next__(s):\n"
        "        if s.n <= 0: raise StopIteration\n"
        "        return next(E(s.n - 1), 0)\n"
        "def go(n): next(E(n))",
    ),
    "__contains__": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __contains__(s, x): return s.n <= 0 or x in E(s.n - 1)\n"
        "def go(n): 1 in E(n)",
    ),
    "__setattr__": (
        992,
        "class E:\n    def __setattr__(s, k, n):\n        if n > 0: s.k = n - 1\ndef go(n): E().k = n",
    ),
    "__setitem__": (
        992,
        "class E:\n    def __setitem__(s, k, n):\n        if n > 0: s[k] = n - 1\ndef go(n): E()[0] = n",
    ),
    "__enter__": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __enter__(s):\n"
        "        if s.n > 0:\n"
        "            with E(s.n - 1): pass\n"
        "    def __exit__(s, *a): pass\n"
        "def go(n):\n"
        "    with E(n): pass",
    ),
    "__repr__": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __repr__(s): return 'x' if s.n <= 0 else repr(E(s.n - 1))\n"
        "def go(n): repr(E(n))",
    ),
    "__repr__ list": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __repr__(s): return 'x' if s.n <= 0 else repr([E(s.n - 1)])\n"
        "def go(n): repr(E(n))",
    ),
    "__str__ fstring": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __str__(s): return 'x' if s.n <= 0 else f'{E(s.n - 1)}'\n"
        "def go(n): str(E(n))",
    ),
    "__str__ %": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __str__(s): return 'x' if s.n <= 0 else '%s' % E(s.n - 1)\n"
        "def go(n): str(E(n))",
    ),
    "__str__ print": (
        992,
        "import io\n"
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __str__(s):\n"
        "        if s.n > 0: print(E(s.n - 1), file=io.StringIO())\n"
        "        return 'x'\n"
        "def go(n): str(E(n))",
    ),
    "__format__": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __format__(s, f): return 'x' if s.n <= 0 else format(E(s.n - 1), f)\n"
        "def go(n): format(E(n))",
    ),
    "str.format": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __format__(s, f): return 'x' if s.n <= 0 else '{}'.format(E(s.n - 1))\n"
        "def go(n): format(E(n))",
    ),
    "__index__": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __index__(s): return 1 if s.n <= 0 else [0, 0][E(s.n - 1)] + 1\n"
        "def go(n): [0, 0][E(n)]",
    ),
    "__int__": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __int__(s): return 1 if s.n <= 0 else int(E(s.n - 1))\n"
        "def go(n): int(E(n))",
    ),
    "__instancecheck__": (
        992,
        "class M(type):\n"
        "    def __instancecheck__(c, n): return n <= 0 or isinstance(n - 1, A)\n"
        "class A(metaclass=M): pass\n"
        "def go(n): isinstance(n, A)",
    ),
    "abc": (
        496,
        "import abc\n"
        "class A(abc.ABC):\n"
        "    @classmethod\n"
        "    def __subclasshook__(c, k):\n"
        "        return True if k.n <= 0 else issubclass(type('K', (), {'n': k.n - 1}), A)\n"
        "def go(n): issubclass(type('K', (), {'n': n}), A)",
    ),
    "__set_name__": (
        992,
        "class S:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __set_name__(s, o, k):\n"
        "        if s.n > 0: type('K', (), {'a': S(s.n - 1)})\n"
        "def go(n): type('K', (), {'a': S(n)})",
    ),
    "__init_subclass__": (
        992,
        "class A:\n"
        "    def __init_subclass__(c):\n"
        "        if c.n > 0: type('K', (A,), {'n': c.n - 1})\n"
        "def go(n): type('K', (A,), {'n': n})",
    ),
    "eval": (496, "def go(n): return 0 if n <= 0 else 1 + eval('go(n - 1)', {'go': go, 'n': n})"),
    "exec": (496, "def go(n):\n    if n > 0: exec('go(n - 1)', {'go': go, 'n': n})"),
    "apply": (992, "def go(*a):\n    n, = a\n    return 0 if n <= 0 else 1 + go(*[n - 1])"),
    "bound in dict": (992, "d = {}\ndef go(n): return 0 if n <= 0 else 1 + d['go'](n - 1)\nd['go'] = go"),
    "operator.call": (992, "import operator\ndef go(n): return 0 if n <= 0 else 1 + operator.call(go, n - 1)"),
    "methodcaller": (
        992,
        "import operator\n"
        "class A:\n"
        "    def f(self, n): return 0 if n <= 0 else 1 + operator.methodcaller('f', n - 1)(self)\n"
        "go = A().f",
    ),
    "itemgetter": (
        992,
        "import operator\n"
        "class A:\n"
        "    def __getitem__(self, n): return 0 if n <= 0 else 1 + operator.itemgetter(n - 1)(self)\n"
        "def go(n): A()[n]",
    ),
    "attrgetter": (
        992,
        "import operator\n"
        "class D:\n"
        "    def __getattr__(self, n):\n"
        "        n = int(n[1:])\n"
        "        return 0 if n <= 0 else 1 + operator.attrgetter(f'a{n-1}')(self)\n"
        "def go(n): return getattr(D(), f'a{n}')",
    ),
    "contextvars": (
        992,
        "import contextvars\ndef go(n): return 0 if n <= 0 else 1 + contextvars.copy_context().run(go, n - 1)",
    ),
    "contextmanager": (
        496,
        "import contextlib\n"
        "@contextlib.contextmanager\n"
        "def cm(n):\n"
        "    if n > 0:\n"
        "        with cm(n - 1): pass\n"
        "    yield\n"
        "def go(n):\n"
        "    with cm(n): pass",
    ),
    "ExitStack": (
        332,
        "import contextlib\ndef go(n):\n    if n > 0:\n        with contextlib.ExitStack() as s: s.callback(go, n - 1)",
    ),
    "re.sub": (332, "import re\ndef go(n): return '' if n <= 0 else re.sub('x', lambda m: go(n - 1), 'x')"),
    "str.translate": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __getitem__(s, k): return 'x' if s.n <= 0 else 'x'.translate(E(s.n - 1))\n"
        "def go(n): 'x'.translate(E(n))",
    ),
    "json default": (
        248,
        "import json\n"
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "def d(o): return 1 if o.n <= 0 else json.loads(json.dumps(E(o.n - 1), default=d))\n"
        "def go(n): json.dumps(E(n), default=d)",
    ),
    "json default nested": (
        9984,
        "import json\n"
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "def d(o): return 1 if o.n <= 0 else E(o.n - 1)\n"
        "def go(n): json.dumps(E(n), default=d, check_circular=False)",
    ),
    "json hook": (199, "import json\ndef go(n):\n    if n > 0: json.loads('{}', object_hook=lambda o: go(n - 1))"),
    "json dumps list": (9984, "import json\ndef go(n):\n    x = []\n    for _ in range(n): x = [x]\n    json.dumps(x)"),
    "json dumps dict": (
        9984,
        "import json\ndef go(n):\n    x = {}\n    for _ in range(n): x = {'a': x}\n    json.dumps(x)",
    ),
    "json dumps indent": (
        9984,
        "import json\ndef go(n):\n    x = []\n    for _ in range(n): x = [x]\n    json.dumps(x, indent=1)",
    ),
    "json loads list": (9984, "import json\ndef go(n): json.loads('[' * n + ']' * n)"),
    "json loads dict": (9984, "import json\ndef go(n): json.loads('{\"a\":' * n + '1' + '}' * n)"),
    "repr list": (9984, "def go(n):\n    x = []\n    for _ in range(n): x = [x]\n    repr(x)"),
    "repr dict": (9984, "def go(n):\n    x = {}\n    for _ in range(n): x = {1: x}\n    repr(x)"),
    "repr tuple": (9984, "def go(n):\n    x = ()\n    for _ in range(n): x = (x,)\n    repr(x)"),
    "eq list": (9984, "def go(n):\n    x = []; y = []\n    for _ in range(n): x = [x]; y = [y]\n    x == y"),
    "eq dict": (9984, "def go(n):\n    x = {}; y = {}\n    for _ in range(n): x = {1: x}; y = {1: y}\n    x == y"),
    "lt tuple": (9984, "def go(n):\n    x = (1,); y = (1,)\n    for _ in range(n): x = (x,); y = (y,)\n    x < y"),
    "hash partial": (
        9984,
        "import functools\ndef go(n):\n    x = 1\n    for _ in range(n): x = functools.partial(int, x)\n    repr(x)",
    ),
    "pickle list": (4992, "import pickle\ndef go(n):\n    x = []\n    for _ in range(n): x = [x]\n    pickle.dumps(x)"),
    "pickle dict": (
        4992,
        "import pickle\ndef go(n):\n    x = {}\n    for _ in range(n): x = {1: x}\n    pickle.dumps(x)",
    ),
    "pickle tuple": (
        9984,
        "import pickle\ndef go(n):\n    x = ()\n    for _ in range(n): x = (x,)\n    pickle.dumps(x)",
    ),
    "pickle obj": (
        3328,
        "import pickle\n"
        "class P:\n"
        "    pass\n"
        "import __main__; __main__.P = P; P.__module__ = '__main__'; P.__qualname__ = 'P'\n"
        "def go(n):\n"
        "    x = None\n"
        "    for _ in range(n):\n"
        "        y = P(); y.x = x; x = y\n"
        "    pickle.dumps(x)",
    ),
    "pickle reduce": (
        3328,
        "import pickle\n"
        "import __main__\n"
        "class P:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __reduce__(s): return (int, ('1',)) if s.n <= 0 else (list, ((P(s.n - 1),),))\n"
        "def go(n): pickle.dumps(P(n))",
    ),
    "marshal": (1984, "import marshal\ndef go(n):\n    x = ()\n    for _ in range(n): x = (x,)\n    marshal.dumps(x)"),
    "marshal loads": (1984, "import marshal\ndef go(n): marshal.loads(b')\\x01' * n + b'N')"),
    "deepcopy": (496, "import copy\ndef go(n):\n    x = []\n    for _ in range(n): x = [x]\n    copy.deepcopy(x)"),
    "deepcopy obj": (
        248,
        "import copy\n"
        "class P: pass\n"
        "def go(n):\n"
        "    x = None\n"
        "    for _ in range(n):\n"
        "        y = P(); y.x = x; x = y\n"
        "    copy.deepcopy(x)",
    ),
    "dataclass repr": (
        496,
        "import dataclasses\n"
        "@dataclasses.dataclass\n"
        "class P:\n"
        "    x: object\n"
        "def go(n):\n"
        "    x = None\n"
        "    for _ in range(n): x = P(x)\n"
        "    repr(x)",
    ),
    "dataclass eq": (
        992,
        "import dataclasses\n"
        "@dataclasses.dataclass\n"
        "class P:\n"
        "    x: object\n"
        "def go(n):\n"
        "    x = y = None\n"
        "    for _ in range(n): x = P(x); y = P(y)\n"
        "    x == y",
    ),
    "asdict": (
        992,
        "import dataclasses\n"
        "@dataclasses.dataclass\n"
        "class P:\n"
        "    x: object\n"
        "def go(n):\n"
        "    x = None\n"
        "    for _ in range(n): x = P(x)\n"
        "    dataclasses.asdict(x)",
    ),
    "ast.literal_eval": (200, "import ast\ndef go(n): ast.literal_eval('[' * n + ']' * n)"),
    "ast.parse/unparse": (326, "import ast\ndef go(n): ast.unparse(ast.parse('-' * n + '1'))"),
    "NodeVisitor": (
        496,
        "import ast\n"
        "def go(n):\n"
        "    x = ast.Constant(1)\n"
        "    for _ in range(n): x = ast.UnaryOp(ast.USub(), x)\n"
        "    ast.NodeVisitor().visit(x)",
    ),
    "compile ast": (
        9984,
        "import ast\n"
        "def go(n):\n"
        "    x = ast.Constant(1)\n"
        "    for _ in range(n): x = ast.UnaryOp(ast.USub(), x)\n"
        "    compile(ast.fix_missing_locations(ast.Expression(x)) if n < 900 else fx(x), 'x', 'eval')\n"
        "def fx(x):\n"
        "    e = ast.Expression(x); y = x\n"
        "    while True:\n"
        "        y.lineno = y.end_lineno = 1; y.col_offset = y.end_col_offset = 0\n"
        "        if not hasattr(y, 'operand'): break\n"
        "        y = y.operand\n"
        "    return e",
    ),
    "accumulate": (
        496,
        "import itertools\n"
        "def go(n): return 0 if n <= 0 else list(itertools.accumulate([1, 1], lambda a, b: a + go(n - 1)))[-1]",
    ),
    "starmap": (
        992,
        "import itertools\ndef go(n): return 0 if n <= 0 else 1 + list(itertools.starmap(go, [(n - 1,)]))[0]",
    ),
    "groupby": (
        992,
        "import itertools\ndef go(n): return 0 if n <= 0 else len([0 for _ in itertools.groupby([n - 1], go)])",
    ),
    "defaultdict": (
        496,
        "import collections\n"
        "class K: pass\n"
        "def go(n): return 0 if n <= 0 else 1 + collections.defaultdict(lambda: go(n - 1))[1]",
    ),
    "heapq": (
        992,
        "import heapq\n"
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __lt__(s, o):\n"
        "        if s.n > 0: heapq.heapify([E(s.n - 1), E(s.n - 1)])\n"
        "        return True\n"
        "def go(n): E(n) < E(n)",
    ),
    "bisect": (496, "import bisect\ndef go(n): return n if n <= 0 else bisect.bisect([1], 1, key=lambda x: go(n - 1))"),
    "set contains": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __hash__(s): return 1\n"
        "    def __eq__(s, o): return s.n <= 0 or E(s.n - 1) in {E(s.n - 1)}\n"
        "def go(n): E(n) in {E(n)}",
    ),
    "list.index": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __eq__(s, o): return s.n <= 0 or [E(s.n - 1)].count(E(s.n - 1))\n"
        "def go(n): [E(n)].count(E(n))",
    ),
    "__class_getitem__": (
        992,
        "class A:\n    def __class_getitem__(c, n): return 0 if n <= 0 else 1 + A[n - 1]\ndef go(n): A[n]",
    ),
    "enum": (
        332,
        "import enum\n"
        "class E(enum.Enum):\n"
        "    A = 0\n"
        "    @classmethod\n"
        "    def _missing_(c, n): return E.A if n <= 1 else E(n - 1)\n"
        "def go(n): E(n)",
    ),
    "dataclass hash": (
        992,
        "import dataclasses\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class P:\n"
        "    x: object\n"
        "def go(n):\n"
        "    x = None\n"
        "    for _ in range(n): x = P(x)\n"
        "    hash(x)",
    ),
    "namedtuple repr": (
        992,
        "import collections\n"
        "P = collections.namedtuple('P', 'x')\n"
        "def go(n):\n"
        "    x = None\n"
        "    for _ in range(n): x = P(x)\n"
        "    repr(x)",
    ),
    "Fraction": (
        992,
        "import fractions\n"
        "class N(fractions.Fraction):\n"
        "    def __add__(s, o): return 1 if s <= 0 else N(s.numerator - 1) + 1\n"
        "def go(n): N(n) + 1",
    ),
    "int subclass str": (
        992,
        "class N(int):\n    def __str__(s): return 'x' if s <= 0 else str(N(s - 1))\ndef go(n): str(N(n))",
    ),
    "sqlite fn": (
        496,
        "import sqlite3\n"
        "def go(n):\n"
        "    if n > 0:\n"
        "        c = sqlite3.connect(':memory:'); c.create_function('f', 0, lambda: go(n - 1))\n"
        "        c.execute('select f()').fetchall(); c.close()",
    ),
    "ET iter": (
        992,
        "import xml.etree.ElementTree as ET\ndef go(n): ET.tostring(ET.fromstring('<a>' * n + '</a>' * n))",
    ),
    "__import__": (
        246,
        "import sys\n"
        "class F:\n"
        "    def find_spec(s, name, path=None, target=None):\n"
        "        if name.startswith('zz'):\n"
        "            n = int(name[2:])\n"
        "            if n > 0:\n"
        "                try: __import__(f'zz{n - 1}')\n"
        "                except ModuleNotFoundError: pass\n"
        "sys.meta_path.append(F())\n"
        "def go(n):\n"
        "    try: __import__(f'zz{n}')\n"
        "    except ModuleNotFoundError: pass",
    ),
    "Union isinstance": (9984, "def go(n):\n    t = int\n    for _ in range(n): t = (t,)\n    isinstance('x', t)"),
    "GenericAlias": (9984, "def go(n):\n    t = int\n    for _ in range(n): t = list[t]\n    repr(t)"),
    "typing": (496, "import typing\ndef go(n):\n    t = int\n    for _ in range(n): t = typing.List[t]\n    repr(t)"),
    "exceptiongroup": (
        9984,
        "def go(n):\n"
        "    e = ValueError(1)\n"
        "    for _ in range(n): e = ExceptionGroup('x', [e])\n"
        "    e.split(ValueError)",
    ),
    "except*": (
        9984,
        "def go(n):\n"
        "    e = ValueError(1)\n"
        "    for _ in range(n): e = ExceptionGroup('x', [e])\n"
        "    try: raise e\n"
        "    except* ValueError: pass",
    ),
    "staticmethod nest": (9984, "def go(n):\n    f = int\n    for _ in range(n): f = staticmethod(f)\n    f()"),
    "re compile groups": (492, "import re\ndef go(n): re.compile('(?:' * n + 'a' + ')' * n)"),
    "del nested": (200, "def go(n):\n    x = []\n    for _ in range(n): x = [x]\n    del x"),
    "collections.UserDict": (
        496,
        "import collections\n"
        "class D(collections.UserDict):\n"
        "    def __missing__(self, n): return 0 if n <= 0 else 1 + self[n - 1]\n"
        "def go(n): D()[n]",
    ),
    "ChainMap": (
        496,
        "import collections\n"
        "class D(collections.ChainMap):\n"
        "    def __missing__(self, n): return 0 if n <= 0 else 1 + self[n - 1]\n"
        "def go(n): D()[n]",
    ),
    "operator ior": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __iadd__(s, o):\n"
        "        x = E(s.n - 1)\n"
        "        if s.n > 0: x += 1\n"
        "        return s\n"
        "def go(n):\n"
        "    x = E(n); x += 1",
    ),
    "zip": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __iter__(s): return iter([1] if s.n <= 0 else [len(list(zip(E(s.n - 1))))])\n"
        "def go(n): list(E(n))",
    ),
    "sort list": (992, "def go(n):\n    if n > 0: [n - 1].sort(key=go)\n    return n"),
    "bytes": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __bytes__(s): return b'' if s.n <= 0 else bytes(E(s.n - 1))\n"
        "def go(n): bytes(E(n))",
    ),
    "dict update keys": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def keys(s):\n"
        "        if s.n > 0: dict(E(s.n - 1))\n"
        "        return []\n"
        "def go(n): dict(E(n))",
    ),
    "vars kwargs": (
        992,
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def keys(s):\n"
        "        if s.n > 0: dict(**E(s.n - 1))\n"
        "        return []\n"
        "def go(n): dict(**E(n))",
    ),
    "decimal": (
        992,
        "import decimal\n"
        "class N(decimal.Decimal):\n"
        "    def __add__(s, o): return 1 if s <= 0 else N(int(s) - 1) + 1\n"
        "def go(n): N(n) + 1",
    ),
    "datetime tz": (
        992,
        "import datetime\n"
        "class Z(datetime.tzinfo):\n"
        "    def __init__(s, n=0): s.n = n\n"
        "    def utcoffset(s, d):\n"
        "        if s.n > 0: datetime.datetime(2020, 1, 1, tzinfo=Z(s.n - 1)).utcoffset()\n"
        "        return datetime.timedelta(0)\n"
        "def go(n): datetime.datetime(2020, 1, 1, tzinfo=Z(n)).utcoffset()",
    ),
    "StringIO": (
        992,
        "import io\n"
        "class S(io.TextIOBase):\n"
        "    def write(s, n):\n"
        "        if n != '\\n' and int(n) > 0: print(int(n) - 1, file=S())\n"
        "        return 1\n"
        "def go(n): print(n, file=S())",
    ),
    "codecs": (
        992,
        "import codecs\n"
        "def h(e):\n"
        "    global N\n"
        "    N -= 1\n"
        "    if N > 0: 'ü'.encode('ascii', 'gsth')\n"
        "    return ('', e.end)\n"
        "codecs.register_error('gsth', h)\n"
        "def go(n):\n"
        "    global N\n"
        "    N = n\n"
        "    'ü'.encode('ascii', 'gsth')",
    ),
    "csv": (
        992,
        "import csv\n"
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __iter__(s):\n"
        "        if s.n > 0: list(csv.reader(E(s.n - 1)))\n"
        "        return iter(['a'])\n"
        "def go(n): list(csv.reader(E(n)))",
    ),
    "array": (
        992,
        "import array\n"
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __iter__(s):\n"
        "        if s.n > 0: array.array('b', E(s.n - 1))\n"
        "        return iter([1])\n"
        "def go(n): array.array('b', E(n))",
    ),
    "struct": (
        992,
        "import struct\n"
        "class E:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __index__(s):\n"
        "        if s.n > 0: struct.pack('i', E(s.n - 1))\n"
        "        return 1\n"
        "def go(n): struct.pack('i', E(n))",
    ),
    "random": (
        496,
        "import random\n"
        "class R(random.Random):\n"
        "    def random(s):\n"
        "        s.n -= 1\n"
        "        if s.n > 0: s.uniform(0, 1)\n"
        "        return .5\n"
        "def go(n):\n"
        "    r = R(); r.n = n; r.uniform(0, 1)",
    ),
    "asyncio Task": (
        984,
        "import asyncio\nasync def g(n):\n    return 0 if n <= 0 else 1 + await g(n - 1)\ndef go(n): asyncio.run(g(n))",
    ),
    "async for": (
        992,
        "async def g(n):\n"
        "    if n > 0:\n"
        "        async for x in g(n - 1): yield x\n"
        "    yield n\n"
        "async def m(n):\n"
        "    async for _ in g(n): pass\n"
        "def go(n):\n"
        "    try: m(n).send(None)\n"
        "    except StopIteration: pass",
    ),
    "coroutine wrapper": (
        992,
        "class A:\n"
        "    def __init__(s, n): s.n = n\n"
        "    def __await__(s):\n"
        "        if s.n > 0: yield from A(s.n - 1).__await__()\n"
        "        return 1\n"
        "async def m(n): await A(n)\n"
        "def go(n):\n"
        "    try: m(n).send(None)\n"
        "    except StopIteration: pass",
    ),
}

# Expression of ``n`` whose value is a source text.
SOURCES: dict[str, tuple[int, str]] = {
    "elif": (5952, "'if a0: pass\\n' + ''.join(f'elif a{i}: pass\\n' for i in range(n))"),
    "ternary": (5952, "'x = ' + '1 if a else ' * n + '2'"),
    "ternary in parens": (200, "'x = ' + '(1 if a else ' * n + '2' + ')' * n"),
    "lambda": (2976, "'x = ' + 'lambda: ' * n + '2'"),
    "lambda paren": (199, "'x = ' + '(lambda: ' * n + '2' + ')' * n"),
    "parens": (200, "'x = ' + '(' * n + '2' + ')' * n"),
    "lists": (200, "'x = ' + '[' * n + '2' + ']' * n"),
    "dicts": (200, "'x = ' + '{1: ' * n + '2' + '}' * n"),
    "tuples": (200, "'x = ' + '(' * n + '2' + ',)' * n"),
    "calls": (200, "'x = ' + 'f(' * n + '2' + ')' * n"),
    "subscripts": (200, "'x = ' + 'f[' * n + '2' + ']' * n"),
    "attributes": (9984, "'x = a' + '.b' * n"),
    "call chain": (9984, "'x = a' + '()' * n"),
    "method chain": (4992, "'x = a' + '.b()' * n"),
    "subscript chain": (9984, "'x = a' + '[0]' * n"),
    "unary": (5952, "'x = ' + '-' * n + '1'"),
    "not": (5952, "'x = ' + 'not ' * n + '1'"),
    "plus": (9984, "'x = a' + ' + a' * n"),
    "str plus": (9984, "'x = \"a\"' + ' + \"b\"' * n"),
    "power": (2976, "'x = a' + ' ** a' * n"),
    "bool and": (16384, "'x = a' + ' and a' * n"),
    "and or": (16384, "'x = a' + ' and b or c' * n"),
    "compare": (16384, "'x = a' + ' < a' * n"),
    "compare paren": (193, "'x = ' + '(a < ' * n + 'b' + ')' * n"),
    "await chain": (200, "'async def f():\\n    x = ' + 'await (' * n + 'a' + ')' * n"),
    "yield": (200, "'def f():\\n    x = ' + '(yield ' * n + 'a' + ')' * n"),
    "starred": (200, "'x = ' + '[*' * n + 'a' + ']' * n"),
    "comprehension": (200, "'x = ' + '[a for a in ' * n + 'b' + ']' * n"),
    "generator": (200, "'x = ' + '(a for a in ' * n + 'b' + ')' * n"),
    "walrus": (200, "'x = ' + '(a := ' * n + 'b' + ')' * n"),
    "if nested": (99, "''.join(' ' * i + 'if a:\\n' for i in range(n)) + ' ' * n + 'pass\\n'"),
    "def nested": (99, "''.join(' ' * i + 'def f():\\n' for i in range(n)) + ' ' * n + 'pass\\n'"),
    "class nested": (99, "''.join(' ' * i + 'class f:\\n' for i in range(n)) + ' ' * n + 'pass\\n'"),
    "else if": (
        99,
        "''.join(' ' * i + 'if a: pass\\n' + ' ' * i + 'else:\\n' for i in range(n)) + ' ' * n + 'pass\\n'",
    ),
    "decorators": (16384, "'@a\\n' * n + 'def f(): pass\\n'"),
    "assign chain": (16384, "'a = ' * n + '1'"),
    "targets": (200, "'[' * n + 'a' + ']' * n + ' = b'"),
    "target parens": (200, "'(' * n + 'a' + ')' * n + ' = b'"),
    "match nested": (200, "'match a:\\n case ' + '[' * n + 'b' + ']' * n + ': pass\\n'"),
    "match or": (16384, "'match a:\\n case 1' + ' | 2' * n + ': pass\\n'"),
    "match class": (200, "'match a:\\n case ' + 'C(' * n + 'b' + ')' * n + ': pass\\n'"),
    "annotation": (200, "'x: ' + 'list[' * n + 'int' + ']' * n + ' = 1'"),
    "union": (9984, "'x: int' + ' | int' * n + ' = 1'"),
    "type param": (199, "'def f[T: ' + 'list[' * n + 'int' + ']' * n + '](): pass'"),
    "default": (199, "'def f(x=' + '(' * n + '1' + ')' * n + '): pass'"),
    "import dots": (16384, "'import a' + '.b' * n"),
    "del nested": (200, "'del ' + '(' * n + 'a' + ',)' * n"),
    "with": (20, "'with ' + 'a, ' * n + 'b: pass'"),
    "try nested": (
        20,
        "''.join(' ' * i + 'try:\\n' for i in range(n)) + ' ' * n + 'pass\\n'"
        " + ''.join(' ' * i + 'finally: pass\\n' for i in reversed(range(n)))",
    ),
    "except chain": (256, "'try: pass\\n' + ''.join(f'except a{i}: pass\\n' for i in range(n))"),
    "slices": (200, "'x = ' + 'a[1:' * n + '2' + ']' * n"),
    "keyword calls": (200, "'x = ' + 'f(a=' * n + '2' + ')' * n"),
    "star calls": (200, "'x = ' + 'f(*' * n + '2' + ')' * n"),
}
