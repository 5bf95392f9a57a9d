"""The conformance test before a sweep: once per plugin, version and options in a results folder."""

from __future__ import annotations

import hashlib
import json

from bench.files import write_text
from bench.plan.plan import Plan
from bench.progress import Display
from bench.registry import load
from bench.results.folder import Results


def check_plugins(plan: Plan, results: Results, display: Display) -> None:
    """Test every plugin of a plan that this folder has not seen pass.

    Raises:
        ValueError: for the first that does not conform, with what is wrong, in one line.
    """
    runs = {planned.run.method: planned.run for planned in plan.runs if planned.run.plugin}
    for method, run in runs.items():
        content = json.dumps([run.plugin, dict(run.options)], sort_keys=True)
        record = results.cached(f"checked-{hashlib.sha256(content.encode()).hexdigest()[:12]}")
        if record.exists():
            continue
        from bench.testing import check_paradigm  # imported late: most sweeps have no plugin

        display.say(f"checking {method} ({run.plugin})")
        problems = check_paradigm(load(run.paradigm), **run.options)
        if problems:
            raise ValueError(
                f"method {method!r} does not conform: {problems[0]}; `paradigm-bench check {run.paradigm}` says all that is wrong"
            )
        record.parent.mkdir(parents=True, exist_ok=True)
        write_text(record, content)
