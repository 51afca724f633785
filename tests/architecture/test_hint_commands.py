"""No text from outside becomes a part of a command: hints are made of constants, numbers and quoted words only.

A hint is what a person pastes next, often as root. The check follows every expression of a hint through the source:
constants, numbers (by their format), `command` and `shell_word` of `rotator.core.hints`, other hints, and what is made
of these alone. It checks in the same way each text that stands behind the name of a program, in hints or elsewhere.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROTATOR = Path(__file__).parents[2] / "rotator"
QUOTERS = {("rotator.core.hints", "command"), ("rotator.core.hints", "shell_word")}
"""The functions that make one word of a name."""

TOML = ("rotator.config.value_parsers", "quoted")
"""Makes a string of TOML, for the hints of the configuration, which show what to write into that file."""

NUMERIC = re.compile(r"[-+ ,.0-9]*[bdefgoxX%]|.*%[A-Za-z].*")
"""A format of numbers, or of times: it raises an error for a text."""

SAFE_CALLS = {"int", "len", "min", "max", "round"}
PROGRAMS = (
    "apt|cat|chgrp|chmod|chown|cp|df|findmnt|fuser|gunzip|iconv|install|journalctl|kill|ls|lsattr|mkdir|mv|nginx|"
    "openssl|ps|readlink|rm|rotator|setfacl|ss|sudo|systemctl|systemd-tmpfiles|tar|timedatectl|unzip"
)
COMMAND_BEGIN = re.compile(rf"(?:^|[\s`(:;&|])(?:{PROGRAMS}) (?:-{{0,2}}[\w=,./+-]+ )*[\w=,./+:-]*$")
"""The end of a text that is the beginning of a command: a program, its options, and nothing else."""

SENTENCES = re.compile(
    r"(?:rotator|nginx|install|systemctl) (?:at|by|can|did|does|for|has|in|is|made|needs|never|not|reads?|refused|"
    r"says|serves|exited|still|takes|that|to|was|which|will|with|wrote|listens|could|ended|already|names|of|on|under|and|version)\b"
)
"""Sentences that begin as commands do."""


class Module:
    """One module of rotator, with what its names stand for."""

    def __init__(self, path: Path) -> None:
        self.name = path.relative_to(ROTATOR).as_posix()
        self.tree = ast.parse(path.read_text())
        self.functions = {n.name: n for n in ast.walk(self.tree) if isinstance(n, ast.FunctionDef)}
        self.constants: dict[str, list[ast.expr]] = {}
        self.imports: dict[str, tuple[str, str]] = {}
        for node in self.tree.body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    self.constants.setdefault(name, []).append(value)
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    self.constants.setdefault(name, []).append(value)
                case ast.ImportFrom(module=str(module), names=names) if module.startswith("rotator."):
                    for alias in names:
                        self.imports[alias.asname or alias.name] = (module, alias.name)
        self.scope: dict[ast.AST, ast.FunctionDef] = {}
        for function in [node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef)]:
            for inner in ast.walk(function):  # an inner function comes after the one around it
                if inner is not function:
                    self.scope[inner] = function


def _module_key(path: Path) -> str:
    parts = path.relative_to(ROTATOR.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {_module_key(path): Module(path) for path in sorted(ROTATOR.rglob("*.py"))}


def _parameters(node: ast.AST) -> list[str]:
    """The names that a call gives by position: parameters, or the fields of a dataclass."""
    match node:
        case ast.FunctionDef(args=arguments):
            return [a.arg for a in arguments.args if a.arg != "self"]
        case ast.ClassDef(body=body):
            for method in body:
                if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                    return _parameters(method)
            return [f.target.id for f in body if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name)]
    return []


def _takers(module: Module) -> dict[str, int]:
    """Each function and class of a module with a parameter `hint`, and the position of that in a call."""
    return {
        node.name: names.index("hint")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name != "__init__"
        if "hint" in (names := _parameters(node))
    }


TAKERS = {key: _takers(module) for key, module in MODULES.items()}


def _hint_position(module: Module, key: str, name: str) -> int | None:
    """Which argument of a call is its hint, if the name is of this module or imported from another one."""
    if name in TAKERS[key]:
        return TAKERS[key][name]
    origin, original = module.imports.get(name, ("", ""))
    return (
        next(
            (takers[original] for other, takers in TAKERS.items() if other.startswith(origin) and original in takers),
            None,
        )
        if origin
        else None
    )


def _called(node: ast.Call) -> str:
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _hints(key: str) -> Iterator[ast.expr]:
    """Every expression of a module that is a hint or becomes one."""
    module = MODULES[key]
    for node in ast.walk(module.tree):
        match node:
            case ast.Call(args=args, keywords=keywords):
                yield from (one.value for one in keywords if one.arg == "hint")
                position = _hint_position(module, key, _called(node))
                if position is not None:
                    yield from args[position : position + 1]
            case ast.Assign(targets=[target], value=value):
                yield from _assigned(target, value)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                yield from _assigned(target, value)
            case ast.AugAssign(target=target, value=value):
                yield from _assigned(target, value)


def _assigned(target: ast.expr, value: ast.expr) -> Iterator[ast.expr]:
    name = target.id if isinstance(target, ast.Name) else target.attr if isinstance(target, ast.Attribute) else ""
    if name.lower().endswith(("hint", "hints")):
        yield value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        for one, its in zip(target.elts, value.elts, strict=True):
            yield from _assigned(one, its)


class Judge:
    """Says of an expression whether it is made of constants, numbers and quoted words."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.seen: set[ast.AST] = set()

    def unsafe(self, node: ast.expr | None) -> list[str]:
        """The parts of the expression that may be any text, as source."""
        if node is None or node in self.seen:
            return []
        self.seen.add(node)
        match node:
            case ast.Constant():
                return []
            case ast.JoinedStr(values=values):
                return self.all(values)
            case ast.FormattedValue(value=value, format_spec=spec):
                if isinstance(spec, ast.JoinedStr) and NUMERIC.fullmatch(ast.unparse(spec).strip("f'\"")):
                    return []
                return self.unsafe(value)
            case ast.BinOp(op=ast.Add(), left=left, right=right):
                return self.all([left, right])
            case ast.BinOp(op=ast.LShift() | ast.RShift() | ast.Sub() | ast.FloorDiv()):
                return []  # a number, or an error
            case ast.BoolOp(values=values):
                return self.all(values)
            case ast.IfExp(body=body, orelse=orelse):
                return self.all([body, orelse])
            case ast.Tuple(elts=elements) | ast.List(elts=elements):
                return self.all(elements)
            case ast.Dict(values=values):
                return self.all(values)
            case ast.GeneratorExp(elt=element) | ast.ListComp(elt=element):
                return self.unsafe(element)
            case ast.Starred(value=value) | ast.Subscript(value=value):
                return self.unsafe(value)
            case ast.Attribute(attr="hint") | ast.Attribute(value=ast.Name(id="Code" | "Reason")):
                return []
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name in self.module.imports:
                origin = ".".join(self.module.imports[name])
                if origin in MODULES and attribute in MODULES[origin].constants:
                    return Judge(MODULES[origin]).all(MODULES[origin].constants[attribute])
            case ast.Name(id=name):
                return self._name(node, name)
            case ast.Call():
                return self._call(node)
        return [ast.unparse(node)]

    def all(self, nodes: Sequence[ast.expr]) -> list[str]:
        """The parts of these expressions that may be any text."""
        return [one for node in nodes for one in self.unsafe(node)]

    def _call(self, node: ast.Call) -> list[str]:
        name = _called(node)
        origin = self.module.imports.get(name) if isinstance(node.func, ast.Name) else None
        if origin in QUOTERS:
            return self.unsafe(node.args[0]) if name == "command" else []
        if self.module.name.startswith("config/") and (origin == TOML or name == TOML[1]):
            return []
        if name in SAFE_CALLS:
            return []
        if isinstance(node.func, ast.Attribute):
            if name == "join" and isinstance(node.func.value, ast.Constant):
                match node.args:
                    case [ast.Call(func=ast.Name(id="map"), args=[ast.Name(id="shell_word" | "quoted"), *_])]:
                        return []
                return self.all(list(node.args))
            if name in {"get", "rstrip", "strip"}:
                return [*self.unsafe(node.func.value), *(self.all(node.args[1:]) if name == "get" else [])]
        function, module = self.module.functions.get(name), self.module
        if function is None and name in self.module.imports:
            module = MODULES.get(self.module.imports[name][0], module)
            function = module.functions.get(self.module.imports[name][1])
        if function is None:
            return [ast.unparse(node)]
        judge = Judge(module)
        judge.seen = self.seen
        values = [
            one.value for one in ast.walk(function) if isinstance(one, ast.Return) and module.scope[one] is function
        ]
        return [one for value in values for one in judge.unsafe(value)]

    def _name(self, node: ast.Name, name: str) -> list[str]:
        function = self.module.scope.get(node)
        while function is not None:
            arguments = function.args
            if name in {a.arg for a in (*arguments.args, *arguments.kwonlyargs)}:
                return [] if name == "hint" else [name]
            if values := list(_bindings(function, name)):
                return [
                    one for value in values for one in (self.unsafe(value) if isinstance(value, ast.expr) else [name])
                ]
            function = self.module.scope.get(function)
        if name in self.module.constants:
            return self.all(self.module.constants[name])
        if name in self.module.imports:
            module, original = self.module.imports[name]
            if module in MODULES and original in MODULES[module].constants:
                judge = Judge(MODULES[module])
                return judge.all(MODULES[module].constants[original])
        return [name]


def _bindings(function: ast.FunctionDef, name: str) -> Iterator[ast.expr | None]:
    """What a local name is set to; None where the value cannot be followed."""
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    yield from _binding(target, value, name)
            case ast.AnnAssign(target=target, value=ast.expr() as value) | ast.AugAssign(target=target, value=value):
                yield from _binding(target, value, name)
            case ast.NamedExpr(target=target, value=value):
                yield from _binding(target, value, name)
            case ast.For(target=target, iter=values) | ast.comprehension(target=target, iter=values):
                elements = values.elts if isinstance(values, ast.Tuple | ast.List) else []
                for element in elements:
                    yield from _binding(target, element, name)
                if not elements and any(isinstance(one, ast.Name) and one.id == name for one in ast.walk(target)):
                    yield None


def _binding(target: ast.expr, value: ast.expr, name: str) -> Iterator[ast.expr | None]:
    if isinstance(target, ast.Name) and target.id == name:
        yield value
    elif isinstance(target, ast.Tuple):
        if isinstance(value, ast.Tuple) and len(value.elts) == len(target.elts):
            for one, its in zip(target.elts, value.elts, strict=True):
                yield from _binding(one, its, name)
        elif isinstance(value, ast.IfExp):
            yield from _binding(target, value.body, name)
            yield from _binding(target, value.orelse, name)
        elif any(isinstance(one, ast.Name) and one.id == name for one in target.elts):
            yield value


def _loose_commands(module: Module) -> Iterator[tuple[int, str]]:
    """Each part of an f-string that stands behind the beginning of a command and may be any text."""
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.JoinedStr):
            continue
        before = ""
        for part in node.values:
            if isinstance(part, ast.Constant):
                before += str(part.value)
                continue
            last = re.split(r"[:;`(&|]|\. ", before)[-1]
            if COMMAND_BEGIN.search(before) and not SENTENCES.search(last):
                yield from ((node.lineno, f"{last.strip()} {{{one}}}") for one in Judge(module).unsafe(part))
            before += "x"


def test_a_hint_is_made_of_constants_numbers_and_quoted_words() -> None:
    hints = [(module, node) for key, module in MODULES.items() for node in _hints(key)]
    assert len(hints) > 250  # the walk finds them
    wrong = [f"{m.name}:{n.lineno}: {one}" for m, n in hints for one in Judge(m).unsafe(n)]
    assert wrong == []


def test_a_name_behind_the_name_of_a_program_is_a_quoted_word() -> None:
    assert [f"{m.name}:{line}: {one}" for m in MODULES.values() for line, one in _loose_commands(m)] == []


@pytest.mark.parametrize("name", ["shlex"])
def test_only_one_module_quotes_words(name: str) -> None:
    users = [
        module.name
        for module in MODULES.values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Import) and any(alias.name == name for alias in node.names)
    ]
    assert users == ["core/hints.py"]
