"""`paradigm-bench check-submission` and `paradigm-bench leaderboard`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.config.data import ImageData
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.submission.reference import Reference
    from bench.submission.replay import Replay
    from bench.submission.rules import Rules
    from bench.submission.submission import Submission
    from bench.submission.verdict import Verdict

REFERENCE = Path("results") / "reference-band"


def check_submission(options: argparse.Namespace) -> int:
    """Apply the rules and replay the smallest rung; 2 when the submission is refused."""
    from bench.submission.submission import read_submission
    from bench.submission.verdict import judge

    rules, reference = _rules_and_reference(options)
    submission = read_submission(options.results)
    verdict, replayed = judge(submission, reference, rules), None
    if not verdict.refused and not options.no_replay:
        from bench.progress import Display
        from bench.submission.replay import compare, replay

        with tempfile.TemporaryDirectory(prefix="paradigm-bench-") as folder:
            frame = replay(_with_data(submission, options.data), Path(folder), Display())
        replayed = compare(submission, frame, reference, rules)
    refused = [*verdict.refused, *(replayed.refused if replayed else ())]
    if options.json:
        print(json.dumps(_content(submission, verdict, replayed, refused)))
        return 2 if refused else 0
    for line in refused:
        print(f"refused: {line}", file=sys.stderr)
    if refused:
        return 2
    for line in _said(submission, verdict, replayed):
        print(line)
    return 0


def _rules_and_reference(options: argparse.Namespace) -> tuple[Rules, Reference | None]:
    """The rules; and the reference, where there is one."""
    from bench.submission.reference import read_reference
    from bench.submission.rules import load_rules

    folder = options.reference or REFERENCE
    if options.reference is None and not folder.is_dir():
        print(f"no reference at {folder}: plausibility and the closed division are not judged; see --reference", file=sys.stderr)
        return load_rules(), None
    return load_rules(), read_reference(folder)


def _with_data(submission: Submission, path: str | None) -> Submission:
    """The submission with its images at a path of this machine."""
    data = submission.identity.data
    if path is None:
        return submission
    if not isinstance(data, ImageData):
        raise UserError(f"{submission.results.root} renders its images; --data is for submissions on images")
    return replace(submission, identity=replace(submission.identity, data=replace(data, path=path)))


def _content(submission: Submission, verdict: Verdict, replayed: Replay | None, refused: list[str]) -> dict[str, object]:
    """The verdict as JSON values."""
    return {
        "submission": submission.name,
        "passes": not refused,
        "refused": refused,
        "division": verdict.division,
        "open_because": list(verdict.open_because),
        "runs": len(submission.runs),
        "runs_in_band": verdict.num_in_band,
        "runs_replayed": replayed.num_runs if replayed else 0,
        "replay": ("exact" if replayed.exact else "band") if replayed else "none",
    }


def _said(submission: Submission, verdict: Verdict, replayed: Replay | None) -> list[str]:
    """A verdict that passes, as lines."""
    how = "not replayed"
    if replayed is not None:
        to = "to the same numbers" if replayed.exact else "within the reference band, on another kind of processor"
        how = f"{replayed.num_runs} of the smallest rung replayed {to}"
    lines = [f"{submission.results.root} passes: {len(submission.runs)} runs, {verdict.division} division, {how}"]
    lines += [f"open, because: {reason}" for reason in verdict.open_because]
    return [*lines, f"{verdict.num_in_band} of {len(submission.runs)} runs have a reference band and lie in it"]


def leaderboard(options: argparse.Namespace) -> int:
    """Write the standing of submissions that keep the rules; 2 when one does not."""
    from bench.submission.leaderboard import write_leaderboard
    from bench.submission.submission import read_submission
    from bench.submission.verdict import judge

    rules, reference = _rules_and_reference(options)
    judged = []
    for folder in options.results:
        submission = read_submission(folder)
        verdict = judge(submission, reference, rules)
        for line in verdict.refused:
            print(f"refused: {folder}: {line}", file=sys.stderr)
        judged.append((submission, verdict))
    if any(verdict.refused for _, verdict in judged):
        return 2
    for path in write_leaderboard(judged, options.out):
        print(path)
    return 0
