"""Objects: inheritance, properties, descriptors, enums, protocols, exceptions, generators, decorators, matching."""

import contextlib
import functools
import inspect
import operator
import time
import traceback
import typing
import weakref
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum, Flag, auto


class Shade(Enum):
    LIGHT, DARK = auto(), auto()


class Right(Flag):
    READ = auto()
    WRITE = auto()
    BOTH = READ | WRITE


class Positive:
    def __set_name__(self, owner, name):
        self.name = "_" + name

    def __get__(self, instance, owner):
        return self if instance is None else getattr(instance, self.name)

    def __set__(self, instance, value):
        if value <= 0:
            raise ValueError(f"{self.name[1:]} must be positive, not {value}")
        setattr(instance, self.name, value)


class Shape(ABC):
    kinds: typing.ClassVar[dict] = {}

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        Shape.kinds[cls.__name__.lower()] = cls

    @abstractmethod
    def area(self): ...

    def __lt__(self, other):
        return self.area() < other.area()

    def __repr__(self):
        return f"{type(self).__name__}({self.area():.2f})"


class Square(Shape):
    side = Positive()

    def __init__(self, side):
        self.side = side

    def area(self):
        return self.side**2


class Circle(Shape):
    def __init__(self, radius):
        self._radius = radius

    @property
    def radius(self):
        return self._radius

    @radius.setter
    def radius(self, value):
        self._radius = max(value, 0)

    @functools.cached_property
    def square(self):
        return Square(2 * self._radius)

    def area(self):
        return 3.14159 * self.radius * self.radius


class Cube(Square):
    def area(self):
        return super().area() * 6


class Account:
    open_ones = 0

    def __init__(self, owner, balance=0):
        self.owner, self.balance, self.history = owner, balance, []
        Account.open_ones += 1

    def __enter__(self):
        self._before = self.balance
        return self

    def __exit__(self, kind, error, trace):
        if error is not None:
            self.balance = self._before
        return kind is not None and issubclass(kind, ArithmeticError)

    def pay(self, amount, *, to=None, **details):
        if amount > self.balance:
            raise ArithmeticError(f"{self.owner} has only {self.balance}")
        self.balance -= amount
        self.history.append(("pay", amount, details))
        if to is not None:
            to.balance += amount

    def __eq__(self, other):
        return isinstance(other, Account) and self.owner == other.owner

    def __hash__(self):
        return hash(self.owner)

    @classmethod
    def named(cls, text):
        return cls(*text.split(":", 1)[:1])

    @staticmethod
    def fee(amount):
        return amount // 100


@dataclass(slots=True)
class Point:
    x: int
    y: int = 0


def counted(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        wrapper.calls += 1
        return function(*args, **kwargs)

    wrapper.calls = 0
    return wrapper


@counted
def described(value):
    match value:
        case int() | float() if value < 0:
            return "negative"
        case 0 | 1:
            return "bit"
        case str(text) if text.isupper():
            return "loud"
        case [first, *rest]:
            return f"{first} and {len(rest)}"
        case {"kind": "circle", "r": r, **rest}:
            return f"circle {r}{rest or ''}"
        case Point(x=0, y=y):
            return f"on the axis at {y}"
        case Point() as point:
            return repr(point)
        case None:
            return "nothing"
        case _:
            return str(value)


@functools.singledispatch
def size(value):
    return 1


@size.register
def _(value: list):
    return sum(map(size, value))


@size.register
def _(value: dict):
    return size(list(value.values()))


def walk(tree):
    if isinstance(tree, list):
        for branch in tree:
            yield from walk(branch)
    else:
        got = yield tree
        if got:
            yield got


@contextlib.contextmanager
def timed(log):
    started = time.perf_counter()
    try:
        yield log
    finally:
        log.append(time.perf_counter() - started)


def failing(depth):
    try:
        if depth == 0:
            return [][depth]
        return failing(depth - 1)
    except IndexError as error:
        if depth % 3 == 2:
            raise LookupError(depth) from error
        raise
    finally:
        depth = None


def main():
    shapes = [Shape.kinds[k](1 + n % 9) for n in range(150) for k in ("square", "circle", "cube")]
    with contextlib.suppress(ValueError):
        Square(-1)
    for shape in shapes:
        if isinstance(shape, Circle):
            shape.radius += 1
            assert shape.square.area() >= 0
    largest = sorted(shapes)[-3:], max(shapes, key=operator.methodcaller("area")), min(shapes).area()
    accounts = {name: Account(name, 500) for name in ("ada", "bob", "eve")}
    for n in range(900):
        one, other = accounts[("ada", "bob", "eve")[n % 3]], accounts[("bob", "eve", "ada")[n * 7 % 3]]
        with one:
            one.pay(n % 90 + Account.fee(n), to=other, note=f"n{n}", tags=[n])
    circle = {"kind": "circle", "r": 2, "z": 1}
    values = [0, -3, 2.5, "LOUD", "x", [1, 2, 3], circle, Point(0, 3), Point(2), None, (4,)]
    told = [described(v) for v in values * 60]
    leaves = list(walk([[n, [n + 1, [n + 2]]] for n in range(300)]))
    sizes = size({"a": [1, 2, [3, 4]], "b": {"c": leaves[:100]}})
    log, chains = [], 0
    for n in range(80):
        with timed(log), contextlib.suppress(ZeroDivisionError):
            try:
                failing(n % 9)
            except (IndexError, LookupError) as error:
                chains += len(traceback.format_exception(error))
                1 / (n % 2)
    groups = 0
    try:
        raise ExceptionGroup("two", [ValueError(1), TypeError(2)])
    except* ValueError:
        groups += 1
    except* TypeError:
        groups += 2
    rights = [Right(n % 4) | Right.READ for n in range(200)]
    shades = [Shade(1 + n % 2).name for n in range(200)]
    references = [weakref.ref(a, lambda r: None) for a in accounts.values()]
    signature = inspect.signature(Account.pay).bind(None, 5, to=None, why="x").arguments
    partial = functools.partial(operator.add, 5)
    made = [type(f"K{n}", (Square,), {"n": n, "get": lambda self: self.n})(n + 1).get() for n in range(40)]
    named = [Account.named(f"{n}:x") for n in range(100)]
    total = functools.reduce(lambda a, b: a + b.balance, accounts.values(), 0) + sum(map(partial, range(200)))
    hints = typing.get_type_hints(described.__wrapped__)
    counts = described.calls, sizes, chains, groups, len(references), total
    return counts, largest, told[:3], rights[3], shades[0], signature, made, named == named[::-1], hints


for _ in range(6):
    main()
