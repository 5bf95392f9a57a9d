"""The page as one file: template, style, scripts and data inside it, and a policy that forbids everything else."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

LIBRARIES = ("vendor/d3-7.9.0.min.js", "vendor/plot-0.6.17.umd.min.js")
PARTS = tuple(f"page/{name}.js" for name in ("shared", "pointing", "charts", "runs", "explorer"))
STYLE, START, LIVE = "page/page.css", "page/start.js", "page/live.js"


def render(content: dict[str, Any], *, live: bool = False) -> str:
    """The page of some content (see the template) as HTML.

    Its policy lets the page's own scripts run, known by their hashes, and data pictures show; nothing is fetched. A live page may
    ask the server that it came from.
    """
    scripts = [_text(name) for name in LIBRARIES] + [
        "\n".join(_text(name) for name in (*PARTS, *([LIVE] if live else []), START))
    ]
    content = {**content, "data": Markup(content["data"]), "style": Markup(_text(STYLE)), "live": live}
    content |= {"policy": policy(scripts, live=live), "scripts": [Markup(script) for script in scripts]}
    return _environment().get_template("page.html.jinja").render(content)


def render_still(template: str, content: dict[str, Any]) -> str:
    """A page without scripts, from a template of its own; its policy lets nothing run and nothing be fetched."""
    return _environment().get_template(template).render({**content, "style": Markup(_text(STYLE)), "policy": policy([])})


def _environment() -> Environment:
    return Environment(loader=PackageLoader("bench"), autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def policy(scripts: list[str], *, live: bool = False) -> str:
    """A Content-Security-Policy under which these scripts run and no others."""
    if not scripts:
        return "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts)
    connect = "; connect-src 'self'" if live else ""
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        f"form-action 'none'{connect}"
    )


def _text(name: str) -> str:
    return (files("bench") / "templates" / name).read_text(encoding="utf-8")
