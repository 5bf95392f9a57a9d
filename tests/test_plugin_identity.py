"""Whose code a run is: a plugin's source and version decide its name, and the table keeps its commit."""

import importlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import ONE_RUNG, bench, variant
from miniature import EXPERIMENT
from planned import make_plan, make_run

from bench import registry
from bench.config.run import Run
from bench.data.open import open_data
from bench.plan.cells import first_run
from bench.plan.plugin import plugin_commit, plugin_identity
from bench.progress import Display
from bench.results.columns import COLUMNS
from bench.results.folder import Results
from bench.results.identity import bind_experiment, read_identity
from bench.results.table import build_table, load_table, off_plan
from bench.sweep.plugins import check_plugins

ROOT = Path(__file__).parent.parent
SAMPLER = "def sample(self, condition, **settings):\n        return super().sample(condition, **settings)"


class Package:
    """An installed package with one paradigm."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write(SAMPLER)
        self.release("1.0")

    def write(self, body: str) -> None:
        """Its source, imported anew."""
        text = f"from paradigms.next_token import NextToken\n\n\nclass Mine(NextToken):\n    {body}\n"
        (self.folder / "my_package.py").write_text(text)
        sys.modules.pop("my_package", None)
        importlib.invalidate_caches()

    def release(self, version: str) -> None:
        """Its metadata, as pip writes them."""
        info = self.folder / "my_package-0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: my-package\nVersion: {version}\n")
        (info / "entry_points.txt").write_text("[paradigm_bench.paradigms]\nmine = my_package:Mine\n")
        registry.installed.cache_clear()

    def git(self, *arguments: str) -> str:
        """Run git there."""
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(["git", *who, *arguments], cwd=self.folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield Package(folder)
    sys.modules.pop("my_package", None)
    registry.installed.cache_clear()
    sys.dont_write_bytecode = before


def run_of_mine() -> Run:
    method = replace(EXPERIMENT.methods[1], paradigm="mine")
    return first_run(EXPERIMENT, method, EXPERIMENT.sizes[0], 4_000, open_data(EXPERIMENT.data))


def test_source_and_version_are_part_of_the_name(package: Package) -> None:
    first = run_of_mine()
    assert first.plugin.startswith("my-package 1.0 ")
    assert run_of_mine() == first
    package.write(SAMPLER.replace("return ", "return -"))  # the sampler's sign is flipped
    flipped = run_of_mine()
    package.release("1.1")
    released = run_of_mine()
    assert len({run.run_id for run in (first, flipped, released)}) == 3
    assert len({run.trunk_id for run in (first, flipped, released)}) == 3
    package.write(SAMPLER)
    package.release("1.0")
    assert run_of_mine() == first


@pytest.mark.parametrize("regular", [True, False], ids=["regular", "namespace"])
def test_a_package_of_several_files_is_hashed_whole(package: Package, regular: bool) -> None:
    (package.folder / "my_package.py").unlink()
    inside = package.folder / "my_package"
    inside.mkdir()
    if regular:
        (inside / "__init__.py").write_text("from my_package.model import Mine\n")
    else:
        entry = package.folder / "my_package-0.dist-info" / "entry_points.txt"
        entry.write_text("[paradigm_bench.paradigms]\nmine = my_package.model:Mine\n")
        registry.installed.cache_clear()
    (inside / "model.py").write_text("from paradigms.next_token import NextToken\n\n\nclass Mine(NextToken):\n    pass\n")
    (inside / "helper.py").write_text("A = 1\n")
    sys.modules.pop("my_package", None)
    importlib.invalidate_caches()
    before = plugin_identity("mine")
    (inside / "helper.py").write_text("A = 2\n")
    assert plugin_identity("mine") != before
    sys.modules.pop("my_package.model", None)


def test_built_ins_keep_their_names() -> None:
    assert plugin_identity("next-token") == plugin_commit("next-token") == ""
    run = make_run()
    assert "plugin" not in run.content()
    assert Run.from_dict(run.content()) == run
    assert replace(run, plugin="p 1 0123").run_id != run.run_id


def test_the_commit_is_known_from_a_checkout_or_from_pip(package: Package) -> None:
    assert plugin_commit("mine") == ""
    package.git("init", "--quiet")
    package.git("add", "my_package.py")
    package.git("commit", "--quiet", "--message", "one")
    assert plugin_commit("mine") == package.git("rev-parse", "--short=12", "HEAD").strip()
    package.write(SAMPLER + "\n")
    assert plugin_commit("mine").endswith("+")
    told = '{"url": "u", "vcs_info": {"vcs": "git", "commit_id": "0123456789abcdef"}}'
    (package.folder / "my_package-0.dist-info" / "direct_url.json").write_text(told)
    assert plugin_commit("mine") == "0123456789ab"


def test_a_results_folder_with_other_code_is_refused(tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    plan = make_plan(("next-token", 0, 1.0))
    bind_experiment(results, plan.identity)
    assert read_identity(results) == plan.identity
    changed = replace(plan, runs=tuple(replace(p, run=replace(p.run, plugin="p 1 0123")) for p in plan.runs))
    with pytest.raises(ValueError, match="a plugin's source changed"):
        bind_experiment(results, changed.identity)


def test_a_sweep_begins_with_the_check(package: Package, tmp_path: Path) -> None:
    package.write("def loss(self, tokens, condition):\n        return super().loss(tokens, condition)[0].mean(), {}")
    plan = make_plan(("next-token", 0, 1.0))
    runs = tuple(replace(p, run=replace(p.run, paradigm="mine", options={}, plugin=plugin_identity("mine"))) for p in plan.runs)
    with pytest.raises(ValueError, match=r"does not conform: loss has shape \(\).*`paradigm-bench check mine` says all"):
        check_plugins(replace(plan, runs=runs), Results(tmp_path / "results"), Display(quiet=True))
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            "def loss(self, tokens, condition):\n        raise KeyError('what\\\\nelse')",
            "counting its loss on the meta device fails",
        ),
        ("def sample(self, condition, **settings):\n        raise KeyError('what')", "its sampler on the meta device fails"),
    ],
)
def test_a_plan_says_a_plugins_exception_in_one_line(body: str, said: str, package: Package, tmp_path: Path) -> None:
    package.write(body)
    mine = "EXPERIMENT = replace(EXPERIMENT, methods=(replace(METHODS['next-token'], paradigm='mine'),))"
    done = bench("plan", "--experiment", variant(tmp_path / "mine.py", f"{ONE_RUNG}\n{mine}"), "--results", tmp_path / "results")
    assert done.status == 2
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_runs_that_leave_their_plan_are_flagged(tmp_path: Path) -> None:
    results = Results(tmp_path)
    plan = make_plan(("next-token", 0, 1.0))
    for planned, steps in zip(plan.rows, (planned["steps"] for planned in plan.rows), strict=True):
        run = plan.identity.runs[planned["run_id"]]
        trained = {"steps": round(steps * 0.93), "flops_per_image": planned["flops_per_image"]}
        results.run_folder(run.run_id).save_record(run, status="trained", training=trained)
    table = build_table(results, plan.rows)
    assert table["off_plan"].str.contains(r"^steps \d+ for \d+ planned$").all()
    assert off_plan({"steps": 266, "flops_per_image": 10.0}, {"steps": 248, "flops_per_image": 10}) == "steps 248 for 266 planned"
    assert off_plan({"steps": 266, "flops_per_image": 10.0}, {"steps": 262, "flops_per_image": 10}) is None
    assert off_plan({"steps": 266}, {}) is None
    dearer = off_plan({"steps": 266, "flops_per_image": 10.0}, {"steps": 266, "flops_per_image": 11})
    assert dearer == "flops_per_image 11 for 10 planned"


def test_old_tables_stay_readable_under_their_rule() -> None:
    table = load_table(ROOT / "results" / "digits-cpu")
    assert list(table.columns) == list(COLUMNS)
    assert set(table["flop_rule"]) == {"meta-v1"}
    assert table[["off_plan", "plugin"]].isna().all(axis=None)
