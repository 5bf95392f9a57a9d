"""`paradigm-bench new NAME`: a third-party package with one conforming paradigm, its entry point, a test and an experiment."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Literal

from jinja2 import Environment, PackageLoader, StrictUndefined

from bench.registry import targets

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "experiment.py": "experiment.py",
    "learning_rates.py": "learning_rates.py",
    "module_{reads}.py": "{module}.py",
    "test_module.py": "test_{module}.py",
}


def write_plugin(name: str, parent: Path, reads: Literal["codes", "latents"] = "codes") -> Path:
    """Write the package of a paradigm that reads codes or latents into parent/NAME, whole or not at all; returns its folder.

    Raises:
        ValueError: for a name that is not lower-case words joined by hyphens, is taken, or whose folder exists.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for a paradigm; use lower-case words joined by hyphens, such as my-paradigm")
    if name in targets():
        raise ValueError(f"paradigm {name!r} exists already ({targets()[name]}); choose another name")
    folder = parent / name
    if folder.exists():
        raise ValueError(f"{folder} exists already; choose another name, or move it away")
    words = name.split("-")
    content = {
        "reads": reads,
        "name": name,
        "module": "_".join(words),
        "class_name": "".join(word.capitalize() for word in words),
    }
    environment = Environment(
        loader=PackageLoader("bench", "templates/plugin"), undefined=StrictUndefined, keep_trailing_newline=True
    )
    try:
        temporary = Path(tempfile.mkdtemp(dir=parent, prefix=f".{name}-"))
    except OSError as error:
        raise ValueError(f"cannot write to {parent}: {error.strerror}; change to a folder that you may write") from error
    try:
        for template, target in FILES.items():
            text = environment.get_template(f"{template.format(**content)}.jinja").render(content)
            (temporary / target.format(**content)).write_text(text)
        temporary.chmod(0o755)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return folder
