"""An experiment from a Python file or by its name."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

from bench.config.data import ImageData
from bench.config.experiment import Experiment
from bench.config.values import check_values
from bench.errors import UserError, nearest

DEFAULT_EXPERIMENT = "shapes"
LADDER_EXPERIMENT = "ladder"
"""What a budget alone asks for."""


def load_experiment(name: str, data: str | None = None) -> Experiment:
    """The EXPERIMENT of a file, or of experiments/NAME.py here or beside the package, with its images at `data`.

    Raises:
        UserError: when there is none, the file fails or states an impossible value, or `data` is given for a procedural world.
    """
    package = Path(__file__).parent.parent
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
    try:
        check_values(found, "EXPERIMENT")
    except ValueError as error:
        raise UserError(f"experiment {path}: {error}") from error
    if data is None:
        return found
    if not isinstance(found.data, ImageData):
        raise UserError(f"experiment {path} renders its images; --data is for experiments on images")
    return replace(found, data=replace(found.data, path=data))
