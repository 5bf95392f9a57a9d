"""The docstring linter: everything public says what it is, what shapes it takes, and which errors it raises."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path for folder in ("bench", "paradigms") for path in (ROOT / folder).rglob("*.py") if path.name != "__main__.py")
USER_ERRORS = {"ValueError", "FloatingPointError", "UncountedOperatorError", "UnreadableError"}
SHAPE = re.compile(r"\((?:\w|\.\.\.)[\w*/+ .^-]*(?:, ?[\w*/+ .^-]+)*,?\)|\(\)")
ARRAYS = re.compile(r"\b(Tensor|np\.ndarray|Array)\b")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def documented(owner: object, name: str) -> str:
    """A function's docstring; of a method also those of what it overrides in our own classes, whose contract it keeps."""
    if not inspect.isclass(owner):
        return inspect.getdoc(getattr(owner, name, None)) or ""
    ours = [base for base in owner.__mro__ if base.__module__.split(".")[0] in ("bench", "paradigms") and name in vars(base)]
    return "\n".join(inspect.getdoc(vars(base)[name]) or "" for base in ours).strip()


def functions(path: Path) -> list[tuple[str, Function, str]]:
    """Public functions and methods of a file with their docstrings; a method may inherit its own."""
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    found = []

    def visit(nodes: list[ast.stmt], owner: object, prefix: str) -> None:
        for node in nodes:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                visit(node.body, getattr(owner, node.name, None), f"{prefix}{node.name}.")
            elif isinstance(node, Function) and not node.name.startswith("_"):
                found.append((prefix + node.name, node, documented(owner, node.name)))

    visit(ast.parse(path.read_text()).body, module, "")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_public_functions_say_what_they_do(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))
    assert not [name for name, _, doc in functions(path) if not doc]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_errors_for_users_are_named(path: Path) -> None:
    lacking = []
    for name, node, doc in functions(path):
        raised = {
            call.func.id
            for call in (each.exc for each in ast.walk(node) if isinstance(each, ast.Raise))
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
        }
        if raised & USER_ERRORS and "Raises:" not in doc:
            lacking.append(name)
    assert not lacking


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_arrays_have_shapes(path: Path) -> None:
    """A function that takes or gives tensors names a shape, in its docstring or that of what it overrides."""
    lacking = []
    for name, node, doc in functions(path):
        annotations = [each.annotation for each in [*node.args.args, *node.args.kwonlyargs]] + [node.returns]
        text = " ".join(ast.unparse(each) for each in annotations if each is not None)
        if ARRAYS.search(text) and not SHAPE.search(doc):
            lacking.append(name)
    assert not lacking
