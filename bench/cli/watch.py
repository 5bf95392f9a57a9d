"""`paradigm-bench watch RESULTS`: the report's page on the loopback address while a sweep runs. Read-only; no outside address."""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from bench.errors import UserError

if TYPE_CHECKING:
    from bench.results.folder import Results

HOST = "127.0.0.1"
NICENESS = 5
"""Of this process: drawing must not slow the sweep down."""
STATE_SECONDS = 1.0
"""A state that was read so recently is sent again."""


class Watched:
    """What the server sends of one results folder: read again when it has changed."""

    def __init__(self, results: Results) -> None:
        import bench.report.page
        import bench.sweep.status  # noqa: F401  imported before the first reader waits
        from bench.results.identity import read_identity
        from bench.results.table import read_plan

        self.results, self.identity = results, read_identity(results)
        read_plan(results)  # a folder without a plan is refused here, before anything listens
        self.lock = threading.Lock()
        self.drawn: tuple[str, bytes] = ("", b"")
        self.read: tuple[float, bytes] = (float("-inf"), b"")

    def version(self) -> str:
        """Changes whenever a run is evaluated, fails or is trained anew."""
        marks = []
        for run_id in self.identity.runs:
            folder = self.results.run_folder(run_id)
            record = folder.record
            stamp = folder.evals.stat().st_mtime_ns if folder.evals.exists() and record.status == "done" else 0
            marks.append((record.status if record.status in ("done", "failed") else "", stamp))
        return format(hash(tuple(marks)) & (2**64 - 1), "x")

    def page(self) -> bytes:
        """The page as the records are now."""
        from bench.report.page import live_page
        from bench.results.table import current_table

        with self.lock:
            version = self.version()
            if version != self.drawn[0]:
                self.drawn = version, live_page(self.results, current_table(self.results)).encode()
            return self.drawn[1]

    def state(self) -> bytes:
        """How far every run is, and its loss so far, as JSON."""
        from bench.sweep.status import loss_curve, run_states, summary

        with self.lock:
            if time.monotonic() - self.read[0] > STATE_SECONDS:
                states = run_states(self.results)
                runs = self.identity.runs
                for state in states:
                    run = runs[state["run_id"]]
                    state |= {"method": run.method, "seed": run.seed, "budget": run.flops_budget, "width": run.size.width}
                    state["loss"] = loss_curve(self.results, run)
                content = {"version": self.version(), "summary": summary(states), "runs": states}
                self.read = time.monotonic(), json.dumps(content, allow_nan=False).encode()
            return self.read[1]


def handler(watched: Watched, hosts: set[str]) -> type[BaseHTTPRequestHandler]:
    """Answers GET for the page and its state, to whoever names this machine as the host."""
    routes: dict[str, tuple[str, Callable[[], bytes]]] = {
        "/": ("text/html; charset=utf-8", watched.page),
        "/state": ("application/json", watched.state),
    }

    class Handler(BaseHTTPRequestHandler):
        """One request."""

        server_version, sys_version = "paradigm-bench", ""

        def do_GET(self) -> None:
            """Send the page or the state."""
            if self.headers.get("Host", "") not in hosts:  # a foreign name that points here reads nothing
                self.answer(403, "text/plain", b"this page is for its own machine alone\n")
            elif self.path not in routes:
                self.answer(404, "text/plain", b"nothing here\n")
            else:
                kind, make = routes[self.path]
                try:
                    status, content = 200, make()
                except ValueError as error:  # a record that is being written, or was damaged
                    status, kind, content = 503, "text/plain; charset=utf-8", f"{' '.join(str(error).split())}\n".encode()
                self.answer(status, kind, content)

        def answer(self, status: int, kind: str, content: bytes) -> None:
            """Send one answer."""
            try:
                self.send_response(status)
                for name, value in {
                    "Content-Type": kind,
                    "Content-Length": str(len(content)),
                    "Cache-Control": "no-store",
                    "X-Content-Type-Options": "nosniff",
                    "Cross-Origin-Resource-Policy": "same-origin",
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):  # the reader has left
                self.close_connection = True

        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing."""

    return Handler


def serve(results: Results, port: int) -> ThreadingHTTPServer:
    """A server of a results folder on the loopback address, ready to `serve_forever`; port 0 takes any that is free.

    Raises:
        ValueError: when the folder holds no sweep.
        UserError: when the port is taken.
    """
    watched = Watched(results)
    hosts: set[str] = set()
    try:
        server = ThreadingHTTPServer((HOST, port), handler(watched, hosts))
    except (OSError, OverflowError) as error:
        raise UserError(f"port {port} cannot be used ({error}); choose another with --port, or 0 for any that is free") from error
    server.daemon_threads = True
    hosts |= {f"{name}:{server.server_port}" for name in (HOST, "localhost")}
    return server


def watch(options: argparse.Namespace) -> None:
    """Serve the page until interrupted."""
    from bench.results.folder import Results  # imported late: with it comes pandas, which `--help` need not wait for

    server = serve(Results(options.results), options.port)
    os.nice(NICENESS)
    print(f"http://{HOST}:{server.server_port}/", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
