"""Imports run one way along the pipeline, and the command line starts without torch. Imports inside functions and under
TYPE_CHECKING count."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED_FOR_PARADIGMS = {"bench.paradigm", "bench.backbone", "bench.conditioning", "bench.graphs", "bench.key_value_cache"}
LONGEST_FILE = 300

NEVER = {
    "config": "flops data tokenizers plan train evaluate results sweep analysis report submission prepare cli speed torch "
    "paradigm backbone key_value_cache conditioning model",
    "flops": "data plan train evaluate results sweep analysis report submission prepare cli speed",
    "tokenizers": "data plan train evaluate results sweep analysis report submission prepare cli speed",
    "data": "plan train evaluate results sweep analysis report submission prepare cli speed",
    "plan": "train evaluate sweep analysis report submission prepare cli speed",
    "results": "data tokenizers plan train evaluate sweep analysis report submission prepare cli speed torch",
    "train": "plan evaluate sweep analysis report submission prepare cli speed",
    "evaluate": "plan train sweep analysis report submission prepare cli speed",
    "analysis": "config flops data tokenizers plan train evaluate sweep report submission prepare cli speed torch pathlib",
    "report": "flops data tokenizers plan train evaluate sweep submission prepare cli speed torch",
    "sweep": "submission prepare cli speed",
    "submission": "prepare cli speed",
    "prepare": "plan train sweep analysis report submission cli speed",
    "cli": "speed",
}
"""Per room the rooms, and packages, that it never imports."""


def modules(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {name_of(path): path for folder in ("bench", "paradigms") for path in modules(folder)}


def imports(path: Path) -> set[str]:
    """Every module that a file imports; of `from package import name`, package.name where that is a module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & FILES.keys()) or {node.module}
    return found


@pytest.mark.parametrize("path", modules("paradigms"), ids=lambda p: p.name)
def test_paradigms_import_the_contract_alone(path: Path) -> None:
    ours = {name for name in imports(path) if name.split(".")[0] == "bench"}
    assert ours <= ALLOWED_FOR_PARADIGMS


@pytest.mark.parametrize("path", modules("bench"), ids=lambda p: str(p.relative_to(ROOT)))
def test_bench_reaches_paradigms_by_the_registry_alone(path: Path) -> None:
    assert not {name for name in imports(path) if name.split(".")[0] in ("paradigms", "experiments")}


def test_no_module_imports_itself_by_a_detour() -> None:
    graph = {name: (imports(path) & FILES.keys()) - {name} for name, path in FILES.items()}
    try:
        tuple(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("room", NEVER)
def test_arrows_between_rooms_run_one_way(room: str) -> None:
    forbidden = {name if name in ("torch", "pathlib") else f"bench.{name}" for name in NEVER[room].split()}
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(f"bench/{room}")
        for name in imports(path)
        if any(name == other or name.startswith(f"{other}.") for other in forbidden)
    }
    assert not wrong


def test_the_ground_floor_imports_no_room_but_config() -> None:
    rooms = tuple(f"bench.{room}." for room in NEVER if room != "config")
    for name in ("errors", "files", "graphs", "hub", "model", "processor", "progress", "randomness", "paradigm", "registry"):
        wrong = {other for other in imports(ROOT / "bench" / f"{name}.py") if f"{other}.".startswith(rooms)}
        assert not wrong, f"bench/{name}.py imports {', '.join(sorted(wrong))}"


def test_nothing_lies_flat_but_entry_contract_and_ground_floor() -> None:
    flat = {path.stem for path in (ROOT / "bench").glob("*.py")}
    contract = {"paradigm", "backbone", "key_value_cache", "conditioning", "registry", "testing"}
    ground = {"errors", "files", "graphs", "hub", "model", "parametrization", "processor", "progress", "randomness"}
    assert flat <= {"__init__", "__main__"} | contract | ground


@pytest.mark.parametrize("path", [*modules("bench"), *modules("paradigms")], ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_needs_scrolling_back(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_FILE


FILE_NAME = re.compile(r"^[\w./-]*\.(json|jsonl|csv|ckpt|safetensors|html|txt|lock)$")
OWN_FILES = {
    "processor.py",
    "report/page.py",
    "results/folder.py",
    "hub.py",
    "plan/company.py",
    "plan/laws.py",
    "plan/plugin.py",
    "evaluate/pretrained.py",
    "cli/scaffold.py",
    "submission/rules.py",
    "submission/folder.py",
}
"""Files that may name a file: of the results folder the first alone; the others name those of other folders."""


@pytest.mark.parametrize("path", modules("bench"), ids=lambda p: str(p.relative_to(ROOT)))
def test_one_room_alone_knows_the_file_names_of_a_results_folder(path: Path) -> None:
    inside = path.relative_to(ROOT / "bench").as_posix()
    if inside in OWN_FILES or inside.split("/")[0] in ("data", "prepare", "tokenizers", "speed"):
        return
    texts = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
    templates = {template.name for template in (ROOT / "bench" / "templates").iterdir()}
    assert not {text for text in texts if isinstance(text, str) and FILE_NAME.match(text)} - templates


def test_help_imports_no_torch() -> None:
    code = "import sys; from bench.cli.parser import build_parser; build_parser().format_help(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


def test_the_parser_needs_neither_pandas_nor_torch() -> None:
    """So that `--help` answers at once."""
    code = "import sys, bench.cli.parser; print({'pandas', 'torch', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"
