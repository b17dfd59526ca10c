"""The package's error messages and prose, collected from its source without running it."""

import ast
import inspect
import io
import itertools
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scalenet_zoo.core import errors

ROOT = Path(__file__).parents[2]
HOLE = "{}"
"""What stands in a message for text that is only known when the error is raised."""
ZOO_ERRORS = {name for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.ZooError)}
USAGE_ERRORS = {"UsageError", "BadParameter"}
PARTS = {"ValueError", "TypeError", "_DamagedError", "_NumberError", "LoadingError"}
"""Errors that a ZooError quotes: their messages become the end of its message."""
_MOST = 64
"""Variants of one message that are looked at."""


@dataclass(frozen=True)
class Message:
    """One message of an error.

    Attributes:
        place: file and line.
        kind: the error's type.
        text: the message, with `{}` for each part that is not constant.
    """

    place: str
    kind: str
    text: str

    @property
    def constant(self) -> str:
        """The part that is the same each time."""
        return self.text.replace(HOLE, "")


def sources() -> list[Path]:
    """The package's Python files."""
    return sorted(path for folder in ("scalenet_zoo", "export") for path in (ROOT / folder).rglob("*.py"))


def messages() -> list[Message]:
    """Every message of the errors above; where a message has variants, each of them."""
    modules = [_Module(path) for path in sources()]
    functions = {name: function for module in modules for name, function in module.functions.items()}
    return [message for module in modules for message in module.messages(functions)]


def prose() -> Iterator[tuple[str, str]]:
    """What people read: docstrings, comments, help and other strings of the code, packaged YAML, and Markdown files.

    Yields:
        A place (file and line), and a paragraph on one line.
    """
    for path in sources():
        text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT)
        for place, comment in _comments(text):
            yield f"{name}:{place}", comment
        for place, string in _strings(ast.parse(text)):
            for paragraph in string.split("\n\n"):
                yield f"{name}:{place}", " ".join(paragraph.split())
    for path in sorted((ROOT / "scalenet_zoo").rglob("*.yaml")):
        for place, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            yield f"{path.relative_to(ROOT)}:{place}", line
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]):
        place = 1
        for paragraph in path.read_text(encoding="utf-8").split("\n\n"):
            yield f"{path.relative_to(ROOT)}:{place}", " ".join(paragraph.split())
            place += paragraph.count("\n") + 2


@dataclass(frozen=True)
class _Known:
    """Where variables and helpers of a message are looked up.

    Attributes:
        functions: by name: those of the package, and before them those of the module.
        calls: of the module, each with the function that it stands in.
    """

    functions: dict[str, ast.FunctionDef]
    calls: "list[tuple[ast.Call, ast.FunctionDef | None]]"


class _Module:
    """One file, and its functions by name."""

    def __init__(self, path: Path) -> None:
        self.name = str(path.relative_to(ROOT))
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        self.functions = {node.name: node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef)}
        self.calls = list(_calls(self.tree, None))

    def messages(self, functions: dict[str, ast.FunctionDef]) -> Iterator[Message]:
        kinds = ZOO_ERRORS | USAGE_ERRORS | PARTS
        known = _Known(functions | self.functions, self.calls)
        for call, function in self.calls:
            kind = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
            if kind in kinds and call.args:
                for text in dict.fromkeys(_templates(call.args[0], function, known, 0)):
                    yield Message(f"{self.name}:{call.lineno}", kind, re.sub(r"(\{\})+", HOLE, text))


def _comments(text: str) -> Iterator[tuple[int, str]]:
    """Lines and texts of comments; those on lines that follow each other are one."""
    begun, last, parts = 0, -1, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            if parts and token.start[0] != last + 1:
                yield begun, " ".join(parts)
                parts = []
            begun, last = begun if parts else token.start[0], token.start[0]
            parts.append(token.string.lstrip("# "))
    if parts:
        yield begun, " ".join(parts)


def _strings(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines and texts of the strings in a tree; an f-string is one of them, with holes."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Constant | ast.JoinedStr):
            yield child.lineno, _templates(child, None, _Known({}, []), 0)[0]
        else:
            yield from _strings(child)


def _calls(node: ast.AST, function: ast.FunctionDef | None) -> Iterator[tuple[ast.Call, ast.FunctionDef | None]]:
    """Calls in a tree, each with the function that it stands in."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield child, function
        yield from _calls(child, child if isinstance(child, ast.FunctionDef) else function)


def _templates(node: ast.AST, function: ast.FunctionDef | None, known: _Known, depth: int) -> list[str]:
    """What an expression may be as text.

    Args:
        node: the expression.
        function: where it stands; its variables are looked up there, and its parameters where it is called.
        known: the functions and calls to look into.
        depth: the number of look-ups so far.

    Returns:
        The variants, with a hole for what is unknown.
    """

    def inner(part: ast.AST) -> list[str]:
        return _templates(part, function, known, depth)

    found: list[str] = []
    match node:
        case ast.Constant(value=str(text)):
            found = [text.replace(HOLE, "")]
        case ast.JoinedStr(values=parts):
            found = ["".join(each) for each in itertools.islice(itertools.product(*map(inner, parts)), _MOST)]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            found = [a + b for a in inner(left) for b in inner(right)]
        case ast.FormattedValue(value=value) | ast.NamedExpr(value=value):
            found = inner(value)
        case ast.IfExp(body=one, orelse=other):
            found = inner(one) + inner(other)
        case ast.Name(id=name) if function is not None and depth < 4:
            for assigned in _assigned(name, function):
                found += _templates(assigned, function, known, depth + 1)
            for argument, caller in _passed(name, function, known.calls):
                found += _templates(argument, caller, known, depth + 1)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(value=ast.Name(id="self"), attr=name), args=args) if (
            name in known.functions and depth < 4 and not any(_is_error(each) for each in args)
        ):
            helper = known.functions[name]
            for part in ast.walk(helper):
                if isinstance(part, ast.Return) and part.value is not None:
                    found += _templates(part.value, helper, known, depth + 1)
    return found[:_MOST] or [HOLE]


def _is_error(node: ast.AST) -> bool:
    """Whether an expression is a caught error: what a helper makes of it is that error's text, and thus a hole."""
    return isinstance(node, ast.Name) and node.id == "error"


def _assigned(name: str, function: ast.FunctionDef) -> Iterator[ast.expr]:
    """What a function assigns to a variable."""
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                yield value
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
                for each, value in zip(targets, values, strict=False):
                    if isinstance(each, ast.Name) and each.id == name:
                        yield value
            case ast.NamedExpr(target=ast.Name(id=target), value=value) if target == name:
                yield value


def _passed(
    name: str, function: ast.FunctionDef, calls: "list[tuple[ast.Call, ast.FunctionDef | None]]"
) -> Iterator[tuple[ast.expr, ast.FunctionDef | None]]:
    """The arguments that a module's calls of a plain function give for a parameter, each with its caller."""
    names = [argument.arg for argument in function.args.args]
    if name not in names:
        return
    place = names.index(name)
    for call, caller in calls:
        if isinstance(call.func, ast.Name) and call.func.id == function.name:
            if place < len(call.args):
                yield call.args[place], caller
            for keyword in call.keywords:
                if keyword.arg == name:
                    yield keyword.value, caller
