"""The page of a sweep that runs, over HTTP: to this machine alone, from the files as they are, and nothing is written."""

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import synthetic
from browser import CHROMIUM, chromium
from command_line import bench
from installed import lacks
from planned import make_plan

from bench.cli.watch import serve
from bench.config.run import Run
from bench.progress import share_bar
from bench.results.folder import Results
from bench.results.identity import bind_experiment
from bench.results.table import save_frame
from bench.sweep.status import loss_curve


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """A sweep of two methods with a rung each, of which nothing has begun."""
    plan, results = make_plan(("next-token", 0, 1.0), ("diffusion", 0, 1.0)), Results(tmp_path / "sweep")
    results.root.mkdir()
    bind_experiment(results, plan.identity)
    save_frame(plan.frame, results.plan)
    return results


@pytest.fixture
def runs(results: Results) -> list[Run]:
    from bench.results.identity import read_identity

    return list(read_identity(results).runs.values())


@pytest.fixture
def port(results: Results) -> Iterator[int]:
    server = serve(results, 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def get(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    """Status, body and type of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), answer.headers.get("Content-Type", "")
    connection.close()
    return found


def train(results: Results, run: Run, *spent: int) -> None:
    """A run that has trained so far."""
    results.run_folder(run.run_id).save_record(run, status="training")
    path = results.trunk_folder(run.trunk_id).metrics
    path.parent.mkdir(parents=True, exist_ok=True)
    same = {"learning_rate": 0.1}
    lines = [{**same, "step": i, "loss": 5.0 - i, "flops_spent": s, "segment_seconds": 2.0 * i} for i, s in enumerate(spent)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def finish(results: Results, run: Run) -> None:
    """A run that is evaluated."""
    folder = results.run_folder(run.run_id)
    folder.save_record(run, status="done", training={"flops_spent": run.flops_budget})
    rows = synthetic.table(synthetic.BUDGETS[:1], num_sizes=1, num_seeds=1, raw=False).query("method == 'mar'")
    decided = (
        "run_id method paradigm tokenizer width depth num_params seed flops_budget flops_spent images_seen status error".split()
    )
    lines = rows.drop(columns=decided).dropna(axis=1, how="all").to_dict("records")
    folder.evals.write_text("".join(json.dumps({k: v for k, v in line.items() if v == v}) + "\n" for line in lines))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_state_and_page_follow_the_files_and_write_none(results: Results, runs: list[Run], port: int) -> None:
    train(results, runs[0], 500, 900)
    before = files_of(results.root)
    status, body, kind = get(port, "/state")
    assert (status, kind) == (200, "application/json")
    state = json.loads(body)
    first = next(each for each in state["runs"] if each["run_id"] == runs[0].run_id)
    assert (first["status"], first["share"], first["loss"]) == ("training", 0.45, [[500, 5.0], [900, 4.0]])
    assert {each["status"] for each in state["runs"]} == {"training", "missing"}
    assert "1 training, 3 missing" in state["summary"]
    status, page, kind = get(port, "/")
    assert (status, kind) == (200, "text/html; charset=utf-8")
    assert "Nothing has finished yet." in page
    assert "connect-src &#39;self&#39;" in page
    assert files_of(results.root) == before
    finish(results, runs[0])
    assert '<span class="method" data-method="next-token">' in get(port, "/")[1]


def test_it_answers_this_machine_and_these_addresses_alone(port: int) -> None:
    assert get(port, "/", Host="evil.example")[0] == 403
    assert get(port, "/state", Host=f"evil.example:{port}")[0] == 403
    assert get(port, "/state", Host=f"localhost:{port}")[0] == 200
    for path in ("/../../etc/passwd", "/experiment.json", "/runs", "/?x"):
        assert get(port, path)[0] == 404
    for method in ("POST", "PUT", "DELETE"):
        assert get(port, "/", method)[0] == 501


def test_a_line_cut_off_by_a_kill_is_no_damage_and_damage_is_one_line(results: Results, runs: list[Run], port: int) -> None:
    train(results, runs[0], 500, 900)
    with results.trunk_folder(runs[0].trunk_id).metrics.open("a") as file:
        file.write('{"step": 2, "fl')
    assert get(port, "/state")[0] == 200
    results.run_folder(runs[1].run_id).path.mkdir(parents=True, exist_ok=True)
    results.run_folder(runs[1].run_id).record_file.write_text("{")
    status, said, _ = get(port, "/")
    assert status == 503
    assert "is damaged" in said
    assert len(said.splitlines()) == 1


def test_a_loss_curve_is_the_trunk_and_then_the_run(results: Results, runs: list[Run]) -> None:
    low = min((run for run in runs if run.method == "diffusion"), key=lambda run: run.flops_budget)
    train(results, low, 600, 1_200, 1_800)
    folder = results.run_folder(low.run_id)
    line = {"step": 9, "loss": 1.0, "learning_rate": 0.1, "segment_seconds": 1.0}
    lines = [{**line, "flops_spent": 600}, {**line, "flops_spent": 1_600}, {**line, "flops_spent": 2_000, "loss": float("nan")}]
    folder.metrics.write_text("".join(json.dumps(each) + "\n" for each in lines))
    assert loss_curve(results, low) == [(600, 5.0), (1_200, 4.0), (1_600, 1.0)]
    assert loss_curve(results, low, most=2) == [(600, 5.0), (1_600, 1.0)]


def test_what_cannot_be_watched_is_one_line(results: Results, port: int, tmp_path: Path) -> None:
    for arguments, said in (
        ((tmp_path / "none",), "make sweep"),
        ((results.root, "--port", port), f"port {port} cannot be used"),
    ):
        done = bench("watch", *map(str, arguments))
        assert (done.status, len(done.err.splitlines())) == (2, 1)
        assert said in done.err or "paradigm-bench plan" in done.err


def test_finished_cells_fill_in_while_the_page_is_open(results: Results, runs: list[Run], port: int, tmp_path: Path) -> None:
    if CHROMIUM is None:
        lacks("Chromium is not on the PATH")
    train(results, runs[0], 500, 900)
    address = f"http://127.0.0.1:{port}/"
    with chromium(tmp_path) as page:
        page.open(address, 390, 844)
        until(page, "document.querySelectorAll('#live progress').length === 2")
        assert "1 training, 3 missing" in page.run("document.getElementById('live').innerText")
        assert page.run("document.querySelectorAll('#live svg').length") == 1
        assert page.run("document.querySelector('.standing')") is None
        page.run("document.getElementById('runs-section').open = true")
        finish(results, runs[0])
        until(page, "document.querySelector('.standing [data-method=next-token] svg') !== null")
        until(page, "document.querySelector('#training-chart svg.plot [aria-label=dot] path') !== null")
        assert page.run("document.getElementById('runs-section').open")
        assert page.run("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
        assert page.problems == []
        assert {each for each in page.requests if not each.startswith("data:")} == {address, f"{address}state"}


def until(page, condition: str) -> None:
    """Wait for a condition of the page, which asks every two seconds."""
    page.run(f"new Promise(done => {{ const look = () => ({condition}) ? done(1) : setTimeout(look, 50); look(); }})")


def test_bars() -> None:
    assert share_bar(0.5, 4) == "██░░  50%"
    assert share_bar(1.2, 4) == "████ 100%"
