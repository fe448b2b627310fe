"""Python that reads programs: its own compiler, and a small language with scanner, parser and machine."""

import ast
import dis
import re
import sys
import tokenize
from io import StringIO
from pathlib import Path

TOKEN = re.compile(r"\s*(?:(\d+\.?\d*)|([A-Za-z_]\w*)|(==|<=|>=|!=|[-+*/()<>=;{},]))")
PROGRAM = """
a = 1; b = 1; n = 0; total = 0;
while n < 60 { c = a + b; a = b; b = c - (c / 1000) * 0; n = n + 1; if n - 2 * half(n) == 0 { total = total + n; } }
total = total * 2 + max(a, n) - a;
"""


class Parser:
    def __init__(self, text):
        self.tokens = [m.group(m.lastindex) for m in TOKEN.finditer(text.rstrip())]
        self.at = 0

    def peek(self):
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self, wanted=None):
        token = self.peek()
        if wanted is not None and token != wanted:
            raise SyntaxError(f"{wanted!r} expected, not {token!r}")
        self.at += 1
        return token

    def block(self):
        found = []
        while self.peek() not in (None, "}"):
            found.append(self.statement())
        return found

    def statement(self):
        word = self.take()
        if word in ("while", "if"):
            condition = self.expression()
            self.take("{")
            body = self.block()
            self.take("}")
            return word, condition, body
        self.take("=")
        value = self.expression()
        self.take(";")
        return "set", word, value

    def expression(self, level=0):
        levels = (("==", "!=", "<", ">", "<=", ">="), ("+", "-"), ("*", "/"))
        if level == len(levels):
            return self.factor()
        left = self.expression(level + 1)
        while self.peek() in levels[level]:
            left = (self.take(), left, self.expression(level + 1))
        return left

    def factor(self):
        token = self.take()
        if token == "(":
            inner = self.expression()
            self.take(")")
            return inner
        if token[0].isdigit():
            return "number", float(token) if "." in token else int(token)
        if self.peek() == "(":
            self.take("(")
            arguments = [self.expression()]
            while self.peek() == ",":
                self.take(",")
                arguments.append(self.expression())
            self.take(")")
            return "call", token, arguments
        return "name", token


OPERATIONS = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b,
    "==": lambda a, b: a == b, "<": lambda a, b: a < b, ">": lambda a, b: a > b,
}  # fmt: skip
FUNCTIONS = {"half": lambda n: n // 2, "max": max}


def value_of(tree, names):
    kind = tree[0]
    if kind == "number":
        return tree[1]
    if kind == "name":
        return names[tree[1]]
    if kind == "call":
        return FUNCTIONS[tree[1]](*[value_of(a, names) for a in tree[2]])
    return OPERATIONS[kind](value_of(tree[1], names), value_of(tree[2], names))


def run(block, names):
    for kind, first, second in block:
        if kind == "set":
            names[first] = value_of(second, names)
        elif kind == "if":
            if value_of(first, names):
                run(second, names)
        else:
            while value_of(first, names):
                run(second, names)


class Renamed(ast.NodeTransformer):
    def visit_Name(self, node):
        return ast.copy_location(ast.Name(id=node.id + "_", ctx=node.ctx), node)


def main(texts):
    names = {}
    for _ in range(6):
        run(Parser(PROGRAM).block(), names)
    nodes = 0
    for text in texts:
        code = compile(text, "text", "exec", dont_inherit=True)
        tree = ast.parse(text)
        nodes += sum(1 for _ in ast.walk(tree))
        docs = [ast.get_docstring(n) for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)]
        changed = ast.unparse(Renamed().visit(tree))
        nodes += len(docs) + len(changed) + len(code.co_consts)
    nodes += sum(1 for _ in tokenize.generate_tokens(StringIO(texts[0]).readline))
    space = {}
    for n in range(150):
        exec(f"def f{n}(a, b={n}):\n    return [a * x + b for x in range(5) if x != {n % 5}]\nr = f{n}({n})", space)
        nodes += eval(f"sum(r) + {n} * len(r)", space)
    nodes += sum(1 for _ in dis.get_instructions(main))
    return nodes, names["total"]


here = Path(__file__).parent
sources = [path.read_text() for path in sorted(here.glob("*.py"))]
for _ in range(2):
    main(sources)
sys.stdout.write("done\n")
