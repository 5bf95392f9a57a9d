"""A processor that ends bf16 products is found out in a child process, and its limit is set for all that follows."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from bench import processor

DIES_BELOW = "import os, signal; os.environ.get('ONEDNN_MAX_CPU_ISA') in {allowed} or os.kill(os.getpid(), signal.{name})"


def command(allowed: set[str], name: str = "SIGILL") -> list[str]:
    """A child that dies of a signal unless a limit is one of those allowed."""
    return [sys.executable, "-c", DIES_BELOW.format(allowed=allowed, name=name)]


@pytest.fixture(autouse=True)
def no_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(processor.LIMIT, raising=False)
    monkeypatch.setenv("PARADIGM_BENCH_CACHE", str(tmp_path))


def test_products_run_here_under_the_limit_that_was_settled() -> None:
    processor.settle()
    assert processor.survives(processor.PROBE)
    assert processor.describe()[1] == ""


@pytest.mark.parametrize(
    ("allowed", "limit"),
    [
        ({None, *processor.LIMITS}, ""),
        (set(processor.LIMITS), "AVX512_CORE_BF16"),
        ({"AVX2"}, "AVX2"),
        (set(), ""),  # nothing helps; doctor says so
    ],
)
def test_the_widest_limit_that_survives_is_chosen(allowed: set[str], limit: str) -> None:
    assert processor.needed_limit(command(allowed)) == limit


def test_a_child_that_fails_otherwise_says_nothing_of_the_processor() -> None:
    assert processor.needed_limit([sys.executable, "-c", "import no_such_module"]) == ""
    assert processor.needed_limit(["/no/such/python"]) == ""
    assert processor.needed_limit(command(set(), "SIGTERM")) == ""


def test_a_machine_is_tried_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tried = []
    monkeypatch.setattr(processor, "announced", lambda: ("A processor", frozenset({"amx_bf16"})))
    monkeypatch.setattr(processor, "needed_limit", lambda: tried.append(1) or "AVX512_CORE_BF16")
    for _ in range(3):
        os.environ.pop(processor.LIMIT, None)
        processor.settle()
        assert os.environ[processor.LIMIT] == "AVX512_CORE_BF16"
    assert tried == [1]
    (kept,) = tmp_path.glob("processor-*.json")
    assert json.loads(kept.read_text())["found"] == "AVX512_CORE_BF16"
    kept.write_text("damaged")
    os.environ.pop(processor.LIMIT)
    processor.settle()
    assert tried == [1, 1]


def test_what_the_user_set_stands_and_plain_processors_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "needed_limit", lambda: pytest.fail("tried"))
    monkeypatch.setattr(processor, "announced", lambda: ("A processor", frozenset({"avx2"})))
    processor.settle()
    assert processor.LIMIT not in os.environ
    monkeypatch.setattr(processor, "announced", lambda: ("A processor", frozenset({"amx_bf16"})))
    monkeypatch.setenv(processor.LIMIT, "AVX2")
    processor.settle()
    assert os.environ[processor.LIMIT] == "AVX2"


def test_doctor_names_a_processor_that_nothing_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "announced", lambda: ("A processor", frozenset({"amx_bf16"})))
    monkeypatch.setattr(processor, "PROBE", command(set()))
    found, advice = processor.describe()
    assert not found
    assert "Illegal instruction" in advice


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_kept() -> None:
    """A softmax over codes, forward and backward, takes new pages at most once more after its first steps, not at each."""
    code = """
import resource, sys
import torch
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    from bench.processor import keep_memory
    keep_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    logits = torch.ones(512, 1024, requires_grad=True)
    torch.log_softmax(logits * 2, -1).sum().backward()
for _ in range(30):
    step()
before = faults()
for _ in range(200):
    step()
print(faults() - before)
"""
    run = lambda how: subprocess.run([sys.executable, "-c", code, how], capture_output=True, text=True, check=True)  # noqa: E731
    default, kept = (int(run(how).stdout) for how in ("default", "keep"))
    assert kept < default / 10
