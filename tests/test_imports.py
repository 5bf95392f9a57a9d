"""Imports run one way, and the command line starts without torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED_FOR_PARADIGMS = {"bench.paradigm", "bench.backbone", "bench.conditioning"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def modules(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("path", modules("paradigms"), ids=lambda p: p.name)
def test_paradigms_import_the_contract_alone(path: Path) -> None:
    ours = {name for name in imports(path) if name.split(".")[0] == "bench"}
    assert ours <= ALLOWED_FOR_PARADIGMS


@pytest.mark.parametrize("path", modules("bench"), ids=lambda p: str(p.relative_to(ROOT)))
def test_bench_reaches_paradigms_by_the_registry_alone(path: Path) -> None:
    assert not {name for name in imports(path) if name.split(".")[0] in ("paradigms", "experiments")}


@pytest.mark.parametrize(
    ("name", "forbidden"), [("plot", {"torch", "pathlib", "bench.results"}), ("results", {"torch"}), ("config", {"torch"})]
)
def test_numbers_and_files_stay_apart(name: str, forbidden: set[str]) -> None:
    assert not imports(ROOT / "bench" / f"{name}.py") & forbidden


def test_help_imports_no_torch() -> None:
    code = "import sys; from bench.__main__ import build_parser; build_parser().format_help(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"
