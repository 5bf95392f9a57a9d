"""Third-party packages as their users meet them: written by `new`, built as wheels, installed beside the suite, swept."""

import os
import runpy
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from command_line import ONE_RUNG, bench, sweep_of, variant

from bench.cli.scaffold import write_plugin
from bench.results.table import finished_rows, load_table
from bench.testing import paradigm_checks

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "absorbing-diffusion"


def run(*command: str, site: Path | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run python with packages of `site` visible beside this checkout."""
    paths = [str(p) for p in (site, ROOT) if p is not None]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=cwd, env=environment, check=False)


def build(source: Path, folder: Path) -> Path:
    """The wheel of a package."""
    done = run("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source))
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def install(wheel: Path, site: Path) -> None:
    done = run("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel))
    assert done.returncode == 0, done.stderr


def copy(source: Path, folder: Path) -> Path:
    """Only what git would hold, so that building leaves nothing in the checkout."""
    for path in source.rglob("*"):
        if path.is_file() and not {"build", "__pycache__"} & set(path.parts) and "egg-info" not in str(path):
            target = folder / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example plugin installed from its wheel."""
    folder = tmp_path_factory.mktemp("example")
    install(build(copy(EXAMPLE, folder / "source"), folder), folder / "site")
    return folder / "site"


@pytest.mark.slow
def test_the_example_is_listed_and_conforms(site: Path) -> None:
    listed = run("-m", "bench", "paradigms", site=site)
    assert "absorbing-diffusion" in listed.stdout
    done = run("-m", "bench", "check", "absorbing-diffusion", site=site)
    assert done.returncode == 0, done.stdout
    assert "passes" in done.stdout


@pytest.mark.slow
def test_the_example_is_swept_beside_the_built_ins(site: Path, tmp_path: Path) -> None:
    mine = "replace(METHODS['next-token'], paradigm='absorbing-diffusion', settings=grid(steps=(4,), guidance=(1.5,)))"
    two = f"EXPERIMENT = replace(EXPERIMENT, flop_rule='meta-v2', methods=(METHODS['next-token'], {mine}))"
    experiment = variant(tmp_path / "mixed.py", f"{ONE_RUNG}\n{two}")
    results = tmp_path / "results"
    done = run("-m", "bench", *sweep_of(experiment, results), site=site)
    assert done.returncode == 0, done.stderr
    rows = finished_rows(load_table(results))
    assert sorted(rows["method"]) == ["absorbing-diffusion", "next-token"]
    assert ((rows["flops_spent"] / rows["flops_budget"] - 1).abs() <= 0.01).all()
    assert set(rows["flop_rule"]) == {"meta-v2"}
    assert rows["off_plan"].isna().all()
    named = rows.set_index("method")["plugin"]
    assert named["absorbing-diffusion"].startswith("absorbing-diffusion 0.1.0 ")
    assert named.isna()["next-token"]
    assert len(list((results / "cache").glob("checked-*.json"))) == 1


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package as `new` writes it."""
    parent = tmp_path_factory.mktemp("written")
    done = bench("new", "my-paradigm", "--folder", parent)
    assert done.status == 0, done.err
    return parent / "my-paradigm"


def test_a_new_plugin_conforms_at_once(written: Path) -> None:
    assert len((written / "my_paradigm.py").read_text().splitlines()) < 60
    paradigm = runpy.run_path(str(written / "my_paradigm.py"))["MyParadigm"]
    assert {name: check(paradigm) for name, check in paradigm_checks()} == {name: [] for name, _ in paradigm_checks()}
    experiment = runpy.run_path(str(written / "experiment.py"))["EXPERIMENT"]
    assert experiment.methods[-1].paradigm == "my-paradigm"


@pytest.mark.slow
def test_a_new_plugin_of_latents_conforms_at_once(tmp_path: Path) -> None:
    done = bench("new", "my-flow", "--reads", "latents", "--folder", tmp_path)
    assert done.status == 0, done.err
    paradigm = runpy.run_path(str(tmp_path / "my-flow" / "my_flow.py"))["MyFlow"]
    assert {name: check(paradigm) for name, check in paradigm_checks()} == {name: [] for name, _ in paradigm_checks()}


def test_a_new_plugin_comes_with_the_search_of_its_rate(written: Path) -> None:
    search = runpy.run_path(str(written / "learning_rates.py"))["EXPERIMENT"]
    assert search.search
    assert search.flop_rule == "meta-v2"
    assert [method.paradigm for method in search.methods] == ["next-token", "my-paradigm"]


@pytest.mark.slow
def test_a_new_plugin_is_installed_tested_and_planned(written: Path, tmp_path: Path) -> None:
    package = copy(written, tmp_path / "my-paradigm")
    install(build(package, tmp_path), tmp_path / "site")
    done = run("-m", "bench", "check", "my-paradigm", site=tmp_path / "site")
    assert done.returncode == 0, done.stdout
    tested = run("-m", "pytest", "-v", "-p", "no:cacheprovider", str(package / "test_my_paradigm.py"), site=package, cwd=package)
    assert tested.returncode == 0, tested.stdout
    assert all(f"test_it_conforms[{name}] PASSED" in tested.stdout for name, _ in paradigm_checks())
    arguments = ["plan", "--experiment", "experiment.py", "--paradigms", "my-paradigm,next-token"]
    planned = run("-m", "bench", *arguments, site=tmp_path / "site", cwd=package)
    assert planned.returncode == 0, planned.stderr
    assert "my-paradigm" in planned.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("My Paradigm", "use lower-case words joined by hyphens"),
        ("../up", "use lower-case words joined by hyphens"),
        ("mar", "exists already (paradigms.mar:MAR)"),
        ("twice", "twice exists already"),
    ],
)
def test_bad_names_are_refused(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "twice").mkdir()
    before = sorted(tmp_path.iterdir())
    done = bench("new", name, "--folder", tmp_path)
    assert done.status == 2
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_the_wheel_names_every_package() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        ".".join(path.parent.relative_to(ROOT).parts) for name in ("bench", "paradigms") for path in (ROOT / name).rglob("*.py")
    }
    assert set(told) == found | {"bench.experiments"}


@pytest.mark.slow
def test_the_wheel_of_the_suite_works_from_any_folder(tmp_path: Path) -> None:
    """Also from one that has a folder called bench; weights, templates and experiments travel with it."""
    names = ("bench", "paradigms", "experiments")
    source = tmp_path / "source"
    for name in names:
        copy(ROOT / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    wheel = build(source, tmp_path)
    held = zipfile.ZipFile(wheel).namelist()
    for part in (
        "weights/shapes32-v1/card.json",
        "templates/page.html.jinja",
        "templates/plugin/module_codes.py.jinja",
        "templates/plugin/module_latents.py.jinja",
        "experiments/shapes.py",
    ):
        assert f"bench/{part}" in held
    assert not [name for name in held if name.startswith(("tests", "results"))]
    site = tmp_path / "site"
    install(wheel, site)
    here = tmp_path / "elsewhere"
    (here / "bench").mkdir(parents=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    script = site / "bin" / "paradigm-bench"
    command = [sys.executable, str(script), "plan", "--budget", "1e20", "--paradigms", "next-token"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=here, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "next-token" in done.stdout


def test_scaffold_writes_whole_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space"):
        write_plugin("half-way", tmp_path)
    assert list(tmp_path.iterdir()) == []
