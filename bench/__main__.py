"""The command line `paradigm-bench`: stages only. Help needs no torch; each stage imports what it uses."""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from bench.registry import did_you_mean
from bench.weights_files import forbid_downloads

DEFAULT_EXPERIMENT = "shapes"


class UserError(Exception):
    """Something that the user can mend, in one line."""


def main(arguments: list[str] | None = None) -> int:
    """Run one stage; a user's error is one line on standard error and exit status 2."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if not getattr(options, "download", False):
        forbid_downloads()
    try:
        return int(options.stage(options) or 0)
    except (UserError, ValueError) as error:
        print(f"paradigm-bench: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of a pipe has seen enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        print(f"paradigm-bench: the disk is full{where}; make room, and the same command resumes", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("paradigm-bench: interrupted; the same command resumes", file=sys.stderr)
        return 130


class Parser(argparse.ArgumentParser):
    """Reports a bad option in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2, naming the nearest allowed value or option."""
        message += self._hint(message)
        print(f"{self.prog}: {' '.join(message.split())}; `{self.prog} --help` lists what is allowed", file=sys.stderr)
        sys.exit(2)

    def _hint(self, message: str) -> str:
        chosen = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if chosen:
            given, allowed = chosen[1], re.findall(r"[\w-]+", chosen[2])
        elif message.startswith("unrecognized arguments: -"):
            given, allowed = message.split()[2].partition("=")[0], list(self._every_option())
        else:
            return ""
        question = did_you_mean(given, allowed)
        return f"; {question}" if question else ""

    def _every_option(self) -> Iterator[str]:
        """Option strings of this parser and its stages."""
        for action in self._actions:
            yield from action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                for stage in action.choices.values():
                    yield from (name for each in stage._actions for name in each.option_strings)


def build_parser() -> argparse.ArgumentParser:
    """All stages and their options."""
    parser = Parser(
        prog="paradigm-bench",
        description="Compare image-generation paradigms at equal training FLOPs on one shared backbone.",
    )
    stages = parser.add_subparsers(dest="command", required=True, metavar="STAGE")

    def add(name: str, stage: Any, text: str) -> argparse.ArgumentParser:
        sub = stages.add_parser(name, help=text, description=text)
        sub.set_defaults(stage=stage)
        return sub

    for name, stage, text in (
        ("plan", plan, "count every run of an experiment; print and write plan.csv; train nothing"),
        ("sweep", sweep, "plan, train, evaluate, tabulate, draw: the whole path; the same command resumes"),
    ):
        sub = add(name, stage, text)
        sub.add_argument("--budget", help="training FLOPs of one run on the top rung, such as 1e20 (default: the experiment's)")
        sub.add_argument(
            "--experiment", default=DEFAULT_EXPERIMENT, help="file with a variable EXPERIMENT, or a name in experiments/"
        )
        sub.add_argument("--results", type=Path, help="results folder (default: results/NAME-BUDGET)")
        sub.add_argument("--paradigms", help="comma-separated methods of the experiment to keep")
        sub.add_argument("--data", help="where the experiment's images lie: a folder, a pattern of shards, or a hub name")
        sub.add_argument("--download", action="store_true", help="let missing data and networks be fetched from the network")
        sub.add_argument("--devices", type=int, default=1, help="GPUs per run and node; without GPUs, processes (default: 1)")
        sub.add_argument("--nodes", type=int, default=1, help="machines per run, with --launcher slurm (default: 1)")
        sub.add_argument("--micro-batch", type=int, help="most images at once on a device (default: its share of a batch)")
        sub.add_argument("--json", action="store_true", help="print the plan as JSON lines instead of a table")
    sub.add_argument("--max-hours", type=float, default=1.0, help="refuse sweeps estimated above this many hours (default: 1)")
    sub.add_argument("--launcher", choices=["local", "slurm"], default="local", help="where runs train (default: local)")
    sub.add_argument("--slurm", default="", help='parameters of the jobs, such as "time=240 partition=gpu gpus_per_node=1"')
    sub.add_argument("--quiet", action="store_true", help="no progress")

    sub = add("run", run, "train and evaluate one planned run, and the rungs of its trunk below it, in this process")
    sub.add_argument("results", type=Path)
    sub.add_argument("run_id")
    sub = add("evaluate", evaluate, "sample and score trained runs again")
    sub.add_argument("results", type=Path)
    sub.add_argument("run_ids", nargs="*", help="default: every trained run")
    for name, stage, text in (
        ("table", table, "derive table.csv from the runs' records"),
        ("plot", report, "draw the figures and the report from table.csv"),
        ("report", report, "draw the figures and the report from table.csv"),
        ("status", status, "what is done, failed and missing"),
    ):
        sub = add(name, stage, text)
        sub.add_argument("results", type=Path)
    sub.add_argument("--json", action="store_true", help="one JSON object per run")
    sub = add("paradigms", paradigms, "list the known paradigms and where they come from")
    sub.add_argument("--json", action="store_true", help="one JSON object per paradigm")
    sub = add("check", check, "run the conformance test on a paradigm")
    sub.add_argument("name")
    sub.add_argument("--options", default="{}", help="constructor options as JSON")
    sub = add("new", new, "write a package with a paradigm of your own, ready to install, check and sweep")
    sub.add_argument("name", help="lower-case words joined by hyphens, such as my-paradigm")
    sub.add_argument("--folder", type=Path, default=Path(), help="where to write it (default: here)")
    sub = add("sample", sample, "write a PNG grid of samples for a caption from a trained run")
    sub.add_argument("run", type=Path, help="folder of the run: results/NAME/runs/RUN_ID")
    sub.add_argument("caption", help="a caption, or the name or number of a class")
    sub.add_argument("--num", type=int, default=8, help="images (default: 8)")
    sub.add_argument("--guidance", type=float, default=2.0, help="guidance scale (default: 2)")
    sub.add_argument("--temperature", type=float, help="sampling temperature (default: the method's first setting)")
    sub.add_argument("--steps", type=int, help="sampler steps (default: the method's first setting)")
    sub.add_argument("--seed", type=int, default=0, help="sampling seed (default: 0)")
    sub.add_argument("--out", type=Path, default=Path("samples.png"), help="file to write (default: samples.png)")
    sub = add("prepare", prepare, "train the suite's own autoencoders and judges for a data set, and measure them")
    sub.add_argument("world", nargs="?", default="shapes32", help="procedural world (default: shapes32)")
    sub.add_argument("--experiment", help="experiment on images whose data is prepared instead of a procedural world")
    sub.add_argument("--data", help="where the experiment's images lie")
    sub.add_argument("--download", action="store_true", help="let missing data be fetched from the network")
    sub.add_argument("--part", action="append", help="only this part; may be repeated")
    sub.add_argument("--measure", action="store_true", help="train nothing; only write the card of measured quality")
    sub = add("doctor", doctor, "versions, devices, weights, caches and free disk, and what is missing")
    sub.add_argument("--json", action="store_true", help="one JSON object per finding")
    sub = add("completion", completion, 'print a completion script: eval "$(paradigm-bench completion bash)"')
    sub.add_argument("shell", choices=["bash", "zsh", "tcsh"])
    return parser


def load_experiment(name: str, data: str | None = None) -> Any:
    """The EXPERIMENT of a file, or of experiments/NAME.py here or beside the package, with its images at `data`."""
    from dataclasses import replace

    from bench.config import Experiment, ImageData
    from bench.registry import nearest

    package = Path(__file__).parent
    folders = [Path("experiments"), package.parent / "experiments", package / "experiments"]  # the last one in an installed wheel
    candidates = [Path(name), *(folder / f"{name}.py" for folder in folders)]
    path = next((p for p in candidates if p.is_file()), None)
    if path is None:
        known = sorted({p.stem for c in candidates[1:] for p in c.parent.glob("*.py")})
        raise UserError(f"no experiment {name!r}; {nearest(Path(name).stem, known)}, or give a Python file")
    try:
        found = runpy.run_path(str(path)).get("EXPERIMENT")
    except (Exception, SystemExit) as error:
        raise UserError(f"experiment {path} raises {type(error).__name__}: {error}; fix the file") from error
    if not isinstance(found, Experiment):
        raise UserError(f"experiment {path} has no variable EXPERIMENT of type bench.config.Experiment")
    if data is None:
        return found
    if not isinstance(found.data, ImageData):
        raise UserError(f"experiment {path} renders its images; --data is for experiments on images")
    return replace(found, data=replace(found.data, path=data))


def make(options: argparse.Namespace, *, to_run: bool) -> tuple[Any, Any]:
    """The plan that the options ask for, and its results folder; a plan to run has the tokenizers' weights."""
    from bench.config import parse_budget

    experiment = load_experiment(options.experiment, options.data)
    budget = parse_budget(options.budget) if options.budget is not None else round(experiment.budget)
    if options.paradigms:
        experiment = experiment.select([name.strip() for name in options.paradigms.split(",")])
    from bench.registry import check_name

    for method in experiment.methods:
        check_name(method.paradigm)
    from bench.instrument import open_instrument
    from bench.machine import this_machine
    from bench.plan import make_plan
    from bench.results import Results

    clustered = getattr(options, "launcher", "slurm") == "slurm"  # a plan says what either would do
    if options.nodes != 1 and not clustered:
        raise UserError(f"NODES={options.nodes} needs LAUNCHER=slurm; a local sweep has one machine")
    machine = this_machine(options.devices, options.nodes, options.micro_batch, elsewhere=clustered)
    root = options.results or Path("results") / f"{experiment.name}-{budget:.1e}".replace("e+", "e").replace(".0e", "e")
    instrument = open_instrument(experiment.data)
    if to_run:
        instrument.check_tokenizers(sorted({method.tokenizer for method in experiment.methods}))
    return make_plan(experiment, budget, instrument, machine), Results(root)


def print_plan(made: Any, as_json: bool) -> None:
    """Show the plan as a table or as JSON lines."""
    from bench.data.cache import format_bytes
    from bench.plan import format_hours

    frame = made.frame
    if as_json:
        print(frame.to_json(orient="records", lines=True), end="")
        return
    shown = frame[
        ["method", "width", "depth", "seed", "flops_budget", "num_params", "flops_per_image", "batch_size", "steps"]
    ].copy()
    shown["images"], shown["epochs"], shown["hours"] = frame["images_seen"], frame["epochs"], frame["hours"]
    for name in ("flops_budget", "flops_per_image"):
        shown[name] = shown[name].map("{:.3e}".format)
    shown["hours"] = shown["hours"].map("{:.3g}".format)
    print(shown.to_string(index=False))
    repeated = int((frame["epochs"] > 4).sum())
    if repeated:
        print(f"{repeated} runs see each image more than 4 times: what they show is repetition as well as scale")
    machine = made.machine
    print(
        f"{len(made.runs)} runs on {len(made.trunks)} trunks, BUDGET={made.budget:.3g}: about {format_hours(made.total_hours)} "
        f"of training on this machine ({machine.device}, {machine.num_workers} at a time, {machine.num_threads} threads each), "
        "evaluation apart"
    )
    print("latent cache: " + ", ".join(f"{name} {format_bytes(size)}" for name, size in made.cache_bytes.items()))


def plan(options: argparse.Namespace) -> None:
    """Count every run and write plan.csv."""
    made, results = make(options, to_run=False)
    print_plan(made, options.json)
    from bench.results import save_frame

    if made.missing_tokenizers:
        results.root.mkdir(parents=True, exist_ok=True)
        print(f"weights not on this machine yet: {', '.join(made.missing_tokenizers)}; the sweep needs them", file=sys.stderr)
    else:
        results.claim(made.identity())
    save_frame(made.frame, results.plan)
    print(f"written to {results.plan}", file=sys.stderr)


def sweep(options: argparse.Namespace) -> int:
    """Do everything that the plan misses; 1 when a run failed."""
    parameters = None
    if options.launcher == "slurm":
        from bench.cluster import check_slurm, parse_parameters

        parameters = parse_parameters(options.slurm)
        check_slurm()
    elif options.slurm:
        raise UserError("SLURM parameters need LAUNCHER=slurm")
    made, results = make(options, to_run=True)
    if parameters is None:  # on a cluster the time limit of the jobs is the bound, and this machine's speed says nothing
        made.check_hours(options.max_hours)
    from bench.progress import Display
    from bench.sweep import run_sweep

    if not options.quiet:
        print_plan(made, options.json)
    display = Display(options.quiet)
    if parameters is not None:
        from bench.cluster import submit_sweep

        submit_sweep(made, results, parameters, display)
        return 0
    return 1 if run_sweep(made, results, display) else 0


def stored_plan(folder: Path) -> Any:
    """A folder's plan."""
    from bench.results import Results, read_frame

    results = Results(folder)
    if not results.plan.exists():
        raise UserError(f"{results.plan} does not exist; make it with `paradigm-bench plan --results {folder}`")
    planned = read_frame(results.plan)
    needed = ["run_id", "trunk_id", "flops_budget"]
    if not set(needed) <= set(planned.columns) or planned[needed].isna().any(axis=None):
        raise UserError(f"{results.plan} lacks some of {', '.join(needed)}; make it again with `paradigm-bench plan`")
    return results, planned.to_dict("records")


def table(options: argparse.Namespace) -> None:
    """Derive table.csv from the runs' records."""
    from bench.results import build_table, save_frame

    results, planned = stored_plan(options.results)
    save_frame(build_table(results, planned), results.table)
    print(results.table)


def report(options: argparse.Namespace) -> None:
    """Draw figures and report from table.csv."""
    from bench.report import write_report
    from bench.results import Results

    results = Results(options.results)
    write_report(results)
    print(results.root / "report.html")


def status(options: argparse.Namespace) -> None:
    """Say what is queued, running, done, failed and missing, and when the rest will be done."""
    from bench.status import run_states, summary

    results, planned = stored_plan(options.results)
    states = run_states(results, planned)
    for state in states:
        if options.json:
            print(json.dumps(state))
            continue
        share = f"{state['share']:4.0%}" if state["status"] in ("training", "interrupted") else "    "
        print(f"{state['status']:11} {share} {state['run_id']}" + (f"  {state['error']}" if state["error"] else ""))
    print(summary(states), file=sys.stderr)


def run(options: argparse.Namespace) -> int:
    """Train and evaluate one planned run here."""
    from bench.progress import Display
    from bench.results import Results
    from bench.sweep import run_alone

    return run_alone(Results(options.results), [options.run_id], Display(), train=True)


def evaluate(options: argparse.Namespace) -> int:
    """Sample and score trained runs again."""
    from bench.progress import Display
    from bench.results import Results
    from bench.sweep import run_alone

    return run_alone(Results(options.results), options.run_ids, Display(), train=False)


def paradigms(options: argparse.Namespace) -> None:
    """List the known paradigms."""
    from bench.registry import BUILT_INS, targets

    for name, target in sorted(targets().items()):
        origin = "built-in" if name in BUILT_INS else "plugin"
        if options.json:
            print(json.dumps({"name": name, "target": target, "origin": origin}))
        else:
            print(f"{name:22} {target:40} {origin}")


def completion(options: argparse.Namespace) -> None:
    """Print a shell's completion script."""
    import shtab

    print(shtab.complete(build_parser(), shell=options.shell))


def check(options: argparse.Namespace) -> int:
    """Run the conformance test; 1 when it finds something."""
    from bench.registry import load
    from bench.testing import check_paradigm

    try:
        extra = json.loads(options.options)
    except json.JSONDecodeError as error:
        raise UserError(f"--options must be a JSON object: {error}") from error
    problems = check_paradigm(load(options.name), **extra)
    for problem in problems:
        print(f"{options.name}: {problem}")
    print(f"{options.name}: {'failed' if problems else 'passes'} the conformance test")
    return 1 if problems else 0


def new(options: argparse.Namespace) -> None:
    """Write a package with a paradigm."""
    from bench.scaffold import write_plugin

    folder = write_plugin(options.name, options.folder)
    print(f"{folder} is written; next: pip install --editable {folder} && paradigm-bench check {options.name}")


def sample(options: argparse.Namespace) -> None:
    """Write a grid of samples for a condition."""
    from dataclasses import replace

    from bench.evaluate.run import save_grid
    from bench.stored import load_sampler

    if options.num < 1:
        raise UserError(f"--num must be at least 1, not {options.num}")
    sampler, instrument = load_sampler(options.run)
    words = instrument.read_condition(options.caption)
    given = {"guidance": options.guidance, "temperature": options.temperature, "steps": options.steps}
    setting = replace(sampler.method.settings[0], **{name: value for name, value in given.items() if value is not None})
    images = sampler.images(words.repeat(options.num, *[1] * (words.ndim - 1)), setting, options.seed)
    save_grid(images, options.out)
    print(options.out)


def prepare(options: argparse.Namespace) -> None:
    """Train and measure the suite's own networks for a data set."""
    from bench.card import write_card
    from bench.config import ImageData
    from bench.instrument import open_instrument
    from bench.instrument.images import ImageInstrument
    from bench.instrument.procedural import ProceduralInstrument
    from bench.prepare import PARTS, Recipe, train_parts
    from bench.progress import Display
    from bench.registry import nearest

    data: str | ImageData = options.world
    if options.data is not None and options.experiment is None:
        raise UserError("--data needs --experiment; a procedural world renders its images")
    if options.experiment is not None:
        data = load_experiment(options.experiment, options.data).data
    instrument, display, recipe = open_instrument(data), Display(), Recipe()
    known = instrument.parts if isinstance(instrument, ImageInstrument) else PARTS
    parts = tuple(options.part or known)
    unknown = [part for part in parts if part not in known]
    if unknown:
        raise UserError(f"unknown part {unknown[0]!r}; {nearest(unknown[0], list(known))}")
    if not options.measure:
        train_parts(instrument, recipe, parts, display)
    if isinstance(instrument, ProceduralInstrument) and all(instrument.hash(part) for part in PARTS):
        print(write_card(instrument, recipe, display))
    if isinstance(instrument, ImageInstrument):
        from bench.card import write_image_card

        print(write_image_card(instrument, recipe, display))


def doctor(options: argparse.Namespace) -> int:
    """Say what this machine has; 1 when something is broken."""
    import bench

    if bench.__file__ is None:
        raise UserError(f"a folder named 'bench' in {os.getcwd()} hides the package; change to another folder")
    from dataclasses import asdict

    from bench.doctor import examine

    broken = False
    for finding in examine():
        broken = broken or finding.broken
        if options.json:
            print(json.dumps(asdict(finding)))
        else:
            wrong = finding.broken or not finding.found
            print(f"{finding.name}: {finding.found or 'missing'}" + (f"; {finding.advice}" if wrong and finding.advice else ""))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
