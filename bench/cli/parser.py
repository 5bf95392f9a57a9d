"""The options of every stage, and one line for a bad one. Help needs no torch; each stage imports what it uses."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from bench.cli.compare import compare
from bench.cli.stages import evaluate, forecast, plan, report, run, status, sweep, table
from bench.cli.submissions import REFERENCE, check_submission, leaderboard
from bench.cli.tools import check, doctor, new, paradigms, prepare, sample
from bench.cli.watch import watch
from bench.config.file import DEFAULT_EXPERIMENT, LADDER_EXPERIMENT
from bench.errors import did_you_mean


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
            "--experiment",
            help="file with a variable EXPERIMENT, or a name in experiments/ "
            f"(default: {LADDER_EXPERIMENT} with --budget, else {DEFAULT_EXPERIMENT})",
        )
        sub.add_argument("--results", type=Path, help="results folder (default: results/NAME-BUDGET)")
        sub.add_argument("--paradigms", help="comma-separated methods of the experiment to keep")
        sub.add_argument("--data", help="where the experiment's images lie: a folder, a pattern of shards, or a hub name")
        sub.add_argument("--download", action="store_true", help="let missing data and networks be fetched from the network")
        sub.add_argument("--devices", type=int, default=1, help="GPUs per run and node; without GPUs, processes (default: 1)")
        sub.add_argument("--nodes", type=int, default=1, help="machines per run, with --launcher slurm (default: 1)")
        sub.add_argument("--micro-batch", type=int, help="most images at once on a device (default: its share of a batch)")
        sub.add_argument("--json", action="store_true", help="print the plan as JSON lines instead of a table")
    sub.add_argument("--up-to", help="leave runs of more training FLOPs for later, to forecast them first (default: none)")
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
    sub = add("watch", watch, "serve the report on this machine's own address while a sweep runs; reads, and writes nothing")
    sub.add_argument("results", type=Path)
    sub.add_argument("--port", type=int, default=8765, help="of the loopback address; 0 takes any that is free (default: 8765)")
    sub = add("forecast", forecast, "predict a budget from the fitted laws and keep it in forecast.json, before it is trained")
    sub.add_argument("results", type=Path)
    sub.add_argument("budget", help="training FLOPs of one run, such as 3e12")
    sub = add("compare", compare, "sweeps of one protocol side by side: differences per cell, and what differs in the experiment")
    sub.add_argument("results", type=Path, nargs="+", help="results folders; all are compared with the first")
    sub.add_argument("--json", action="store_true", help="one JSON object per comparison")
    text = "apply the rules of a submission to a results folder and replay its smallest rung; 2 when it is refused"
    sub = add("check-submission", check_submission, text)
    sub.add_argument("results", type=Path)
    sub.add_argument("--reference", type=Path, help=f"results folder of the baselines' many seeds (default: {REFERENCE})")
    sub.add_argument("--data", help="where the submission's images lie on this machine")
    sub.add_argument("--download", action="store_true", help="let missing data and networks be fetched from the network")
    sub.add_argument("--no-replay", action="store_true", help="train nothing: what fits together passes, changed or not")
    sub.add_argument("--json", action="store_true", help="print the verdict as one JSON object")
    sub = add("leaderboard", leaderboard, "one page of all submissions that keep the rules, and exports for other tools")
    sub.add_argument("results", type=Path, nargs="+", help="submissions of one protocol")
    sub.add_argument("--reference", type=Path, help=f"results folder of the baselines' many seeds (default: {REFERENCE})")
    sub.add_argument("--out", type=Path, default=Path("leaderboard"), help="folder to write (default: leaderboard)")
    sub = add("paradigms", paradigms, "list the known paradigms and where they come from")
    sub.add_argument("--json", action="store_true", help="one JSON object per paradigm")
    sub = add("check", check, "run the conformance test on a paradigm, or on a registered tokenizer")
    sub.add_argument("name")
    sub.add_argument("--options", default="{}", help="of a paradigm: constructor options as JSON")
    sub.add_argument("--resolution", type=int, default=32, help="of a tokenizer: pixels a side (default: 32)")
    sub = add("new", new, "write a package with a paradigm of your own, ready to install, check and sweep")
    sub.add_argument("name", help="lower-case words joined by hyphens, such as my-paradigm")
    sub.add_argument("--folder", type=Path, default=Path(), help="where to write it (default: here)")
    sub.add_argument("--reads", choices=["codes", "latents"], default="codes", help="the tokens that it models (default: codes)")
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


def completion(options: argparse.Namespace) -> None:
    """Print a shell's completion script."""
    import shtab

    print(shtab.complete(build_parser(), shell=options.shell))
