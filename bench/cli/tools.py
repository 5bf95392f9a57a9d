"""The tools beside a sweep, as the command line calls them."""

from __future__ import annotations

import argparse
import json
import os
import sys

from bench.config.file import load_experiment
from bench.errors import UserError


def paradigms(options: argparse.Namespace) -> None:
    """List the known paradigms."""
    from bench.registry import BUILT_INS, targets

    for name, target in sorted(targets().items()):
        origin = "built-in" if name in BUILT_INS else "plugin"
        if options.json:
            print(json.dumps({"name": name, "target": target, "origin": origin}))
        else:
            print(f"{name:22} {target:40} {origin}")


def check(options: argparse.Namespace) -> int:
    """Run the conformance test of a paradigm or of a tokenizer; 1 when it finds something."""
    from bench.registry import load
    from bench.testing import check_paradigm, check_tokenizer
    from bench.tokenizers.plugin import plugin_class, plugin_names

    if options.name in plugin_names():
        return _conclude(options.name, check_tokenizer(plugin_class(options.name), options.resolution))
    try:
        extra = json.loads(options.options)
    except json.JSONDecodeError as error:
        raise UserError(f"--options must be a JSON object: {error}") from error
    return _conclude(options.name, check_paradigm(load(options.name), **extra))


def _conclude(name: str, problems: list[str]) -> int:
    for problem in problems:
        print(f"{name}: {problem}")
    print(f"{name}: {'failed' if problems else 'passes'} the conformance test")
    return 1 if problems else 0


def new(options: argparse.Namespace) -> None:
    """Write a package with a paradigm."""
    from bench.cli.scaffold import write_plugin

    folder = write_plugin(options.name, options.folder, options.reads)
    python = sys.executable
    print(f"{folder} is written; next: {python} -m pip install --editable {folder} && {python} -m bench check {options.name}")


def sample(options: argparse.Namespace) -> None:
    """Write a grid of samples for a condition."""
    from dataclasses import replace

    from bench.evaluate.sampler import load_sampler, save_grid

    if options.num < 1:
        raise UserError(f"--num must be at least 1, not {options.num}")
    sampler, dataset = load_sampler(options.run)
    condition_tokens = dataset.read_condition(options.caption)
    given = {"guidance": options.guidance, "temperature": options.temperature, "steps": options.steps}
    setting = replace(sampler.method.settings[0], **{name: value for name, value in given.items() if value is not None})
    repeated = condition_tokens.repeat(options.num, *[1] * (condition_tokens.ndim - 1))
    images = sampler.images(repeated, setting, options.seed)
    save_grid(images, options.out)
    print(options.out)


def prepare(options: argparse.Namespace) -> None:
    """Train and measure the suite's own networks for a data set."""
    from bench.config.data import ImageData
    from bench.data.open import open_data
    from bench.errors import nearest
    from bench.prepare.networks import missing_networks, own_networks, recipe_of, train_networks
    from bench.prepare.quality import write_card
    from bench.progress import Display

    data: str | ImageData = options.world
    if options.data is not None and options.experiment is None:
        raise UserError("--data needs --experiment; a procedural world renders its images")
    if options.experiment is not None:
        data = load_experiment(options.experiment, options.data).data
    dataset, display = open_data(data), Display()
    recipe = recipe_of(dataset)
    known = own_networks(dataset)
    networks = tuple(options.part or missing_networks(dataset))
    unknown = [network for network in networks if network not in known]
    if unknown:
        raise UserError(f"unknown part {unknown[0]!r}; {nearest(unknown[0], list(known))}")
    if not options.measure:
        train_networks(dataset, recipe, networks, display)
    if all(dataset.hash(network) for network in known):
        print(write_card(dataset, recipe, display))


def doctor(options: argparse.Namespace) -> int:
    """Say what this machine has; 1 when something is broken."""
    import bench

    if bench.__file__ is None:
        raise UserError(f"a folder named 'bench' in {os.getcwd()} hides the package; change to another folder")
    from dataclasses import asdict

    from bench.cli.doctor import examine

    broken = False
    for finding in examine():
        broken = broken or finding.broken
        if options.json:
            print(json.dumps(asdict(finding)))
        else:
            wrong = finding.broken or not finding.found
            print(f"{finding.name}: {finding.found or 'missing'}" + (f"; {finding.advice}" if wrong and finding.advice else ""))
    return 1 if broken else 0
