"""A run's record, run.json."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from bench.config.run import Run
from bench.files import write_text
from bench.results.folder import Results


def save_record(results: Results, run: Run, **changes: Any) -> None:
    """Update the run's run.json, written whole."""
    folder = results.run(run.run_id)
    folder.mkdir(parents=True, exist_ok=True)
    content = {**results.record(run.run_id), "run": asdict(run), **changes}
    write_text(folder / "run.json", json.dumps(content, indent=1))
