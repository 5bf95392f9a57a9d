"""What a process keeps of its speed beside others is measured with real processes, once per machine."""

from pathlib import Path

import pytest

from bench.hub import cache_root
from bench.plan import company


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PARADIGM_BENCH_CACHE", str(tmp_path))


def test_two_processes_keep_a_share_of_their_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(company, "SECONDS", 0.2)
    assert 0 < company.measure(2) <= 1


def test_processes_that_share_a_core_keep_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known answer: steps that wait for a lock which one process holds at a time."""
    shared = (
        "import sys, time, fcntl, tempfile; lock = open(__import__('os').path.join({folder!r}, 'core'), 'w')\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    end, count = time.perf_counter() + float(line), 0\n"
        "    while time.perf_counter() < end:\n"
        "        fcntl.flock(lock, fcntl.LOCK_EX); time.sleep(0.01); count += 1\n"
        "        fcntl.flock(lock, fcntl.LOCK_UN); time.sleep(0.0005)\n"
        "    print(count, flush=True)\n"
    )
    monkeypatch.setattr(company, "STEPS", shared.format(folder=str(cache_root().parent)))
    assert 0.3 < company.measure(2) < 0.75


def test_a_machine_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    monkeypatch.setattr(company, "measure", lambda num: measured.append(num) or 0.6)
    assert [company.kept_speed(2) for _ in range(3)] == [0.6] * 3
    assert company.kept_speed(64) == 0.6
    assert measured == [2, company.MOST_PROCESSES]
    assert company.kept_speed(1) == 1.0
    next(cache_root().glob("company-*.json")).write_text("{}")
    assert {company.kept_speed(2), company.kept_speed(64)} == {0.6}


def test_a_child_that_dies_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(company, "STEPS", "import sys; sys.exit(3)")
    with pytest.raises(RuntimeError, match="ended with status 3"):
        company.measure(2)
