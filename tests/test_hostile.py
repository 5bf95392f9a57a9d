"""Hostile input: whatever is given, one clear line and exit status 2, no code of a file runs, and every file stays as it was.

HOSTILE_EXAMPLES multiplies the number of inputs (1 gives about 400; `make slow` takes 3); HOSTILE_SEED=random draws others.
"""

import contextlib
import io
import os
import pickle
import shutil
import string
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import bench, variant
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bench.config.run import parse_budget
from bench.data.image_files import UnreadableError, decode_image
from bench.model import load_weights
from bench.results.folder import Results
from bench.results.table import load_table, save_frame
from bench.tokenizers.pretrained import _from_checkpoint

FACTOR = int(os.environ.get("HOSTILE_EXAMPLES", "1"))
pytestmark = pytest.mark.hostile
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
WORDS = r"""- -- -1 0 nan inf 1e400 ../.. / ~ [] {} ' " $(x) *"""
JUNK = st.one_of(TEXT, st.sampled_from(["", *WORDS.split()]))


def hostile(examples: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=examples * FACTOR,
        deadline=None,
        derandomize=os.environ.get("HOSTILE_SEED") != "random",
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module", autouse=True)
def count() -> Iterator[dict[str, int]]:
    """How many inputs were tried, printed with -s."""
    tried: dict[str, int] = {}
    yield tried
    print(f"\nhostile inputs: {sum(tried.values())} ({', '.join(f'{n} {name}' for name, n in tried.items())})")


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(folder: Path, *arguments: str) -> str:
    """The one line with which the command refuses; nothing in the folder has changed."""
    before = files_of(folder)
    done = bench(*arguments)
    assert done.status == 2, (arguments, done)
    assert len(done.err.splitlines()) == 1, (arguments, done)
    assert done.err.startswith("paradigm-bench"), done
    assert files_of(folder) == before
    return done.err


# -- arguments and budgets

STAGES = "plan sweep run evaluate table plot report status check new sample prepare completion".split()
OPTIONS = """--budget --experiment --results --paradigms --data --max-hours --launcher --slurm --devices --nodes --micro-batch
--options --folder --num --guidance --steps --part --seed --what""".split()


@hostile(100)
@given(
    stage=st.one_of(st.sampled_from(STAGES), JUNK),
    rest=st.lists(st.one_of(JUNK, st.sampled_from(OPTIONS)), max_size=5),
)
def test_arguments(stage: str, rest: list[str], count: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> None:
    if stage in ("sweep", "prepare", "plan"):
        rest = [*rest, "--experiment", "nothing"]  # else it would begin
    if stage == "new":
        rest = [*rest, "--folder", "/proc/none"]
    count["arguments"] = count.get("arguments", 0) + 1
    folder = tmp_path_factory.mktemp("here")
    with contextlib.chdir(folder):
        done = bench(stage, *rest)
    status, said = done.status, done.err
    if status == 0:  # help, or a script for a shell
        assert any(word in ("-h", "--help", "--h") for word in rest) or stage in ("completion", "doctor", "paradigms"), (
            stage,
            rest,
        )
        return
    assert status == 2, (stage, rest, status, said)
    assert len(said.splitlines()) == 1, (stage, rest, said)
    assert not files_of(folder), (stage, rest)


@hostile(100)
@given(text=st.one_of(JUNK, st.text(string.digits + ".eE+-_ ", max_size=12), st.floats().map(str), st.integers().map(str)))
def test_budgets(text: str, count: dict[str, int]) -> None:
    count["budgets"] = count.get("budgets", 0) + 1
    with contextlib.suppress(ValueError):
        assert parse_budget(text) >= 1


# -- experiment files

ERRORS = "ValueError KeyError OSError SystemExit RecursionError MemoryError StopIteration".split()
RAISING = [
    *(f"raise {name}('no')" for name in ERRORS),
    "raise Exception('two\\nlines')",
    "import nothing_like_this",
    "import sys; sys.exit(0)",
    "f = lambda: f()\nf()",
    "def f(:",
    "1/0",
    "",
    "EXPERIMENT = 3",
    "x = EXPERIMENT",
    "EXPERIMENT = type('E', (), {'name': 'x'})()",
]


@hostile(20)
@given(content=st.one_of(st.sampled_from(RAISING).map(str.encode), st.binary(max_size=60), TEXT.map(str.encode)))
def test_experiment_files_that_raise(content: bytes, count: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> None:
    count["experiment files"] = count.get("experiment files", 0) + 1
    folder = tmp_path_factory.mktemp("experiment")
    (folder / "experiment.py").write_bytes(content)
    said = refused(folder, "plan", "--experiment", str(folder / "experiment.py"), "--results", str(folder / "results"))
    assert "experiment" in said


VALUES = "0 -1 1 2 0.5 1.5 float('nan') float('inf') '8' None 10**30 True () []".split()
FIELDS = {
    "EXPERIMENT": "budget rungs num_seeds sizes methods data recipe name",
    "EXPERIMENT.recipe": "batch_size warmup_steps cooldown weight_decay betas gradient_clip condition_dropout ema_relative_width "
    "precision num_training_images",
    "EXPERIMENT.evaluation": "num_samples num_validation num_reference latency_calls throughput_batches seed",
    "EXPERIMENT.sizes[0]": "width depth num_heads",
    "EXPERIMENT.methods[0]": "paradigm tokenizer learning_rates options settings label",
}
PATHS = {
    "EXPERIMENT": "changed",
    "EXPERIMENT.recipe": "replace(EXPERIMENT, recipe=changed)",
    "EXPERIMENT.evaluation": "replace(EXPERIMENT, evaluation=changed)",
    "EXPERIMENT.sizes[0]": "replace(EXPERIMENT, sizes=(changed,))",
    "EXPERIMENT.methods[0]": "replace(EXPERIMENT, methods=(changed,))",
}
CHANGES = """EXPERIMENT = replace(EXPERIMENT, methods=EXPERIMENT.methods[1:2])
changed = replace({owner}, {field}={value})
EXPERIMENT = {path}"""


@hostile(40)
@given(data=st.data())
def test_experiments_with_impossible_values(
    data: st.DataObject, count: dict[str, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    count["experiment values"] = count.get("experiment values", 0) + 1
    owner = data.draw(st.sampled_from(list(FIELDS)))
    field, value = data.draw(st.sampled_from(FIELDS[owner].split())), data.draw(st.sampled_from(VALUES))
    folder = tmp_path_factory.mktemp("experiment")
    path = variant(folder / "experiment.py", CHANGES.format(owner=owner, field=field, value=value, path=PATHS[owner]))
    before = files_of(folder)
    done = bench("plan", "--experiment", str(path), "--results", str(folder / "results"))
    status, said = done.status, done.err
    if status == 0:  # a value that is possible
        return
    assert status == 2, (owner, field, value, said)
    assert len(said.splitlines()) == 1, said
    assert files_of(folder) == before


# -- records of a sweep


def mutate(content: bytes, data: st.DataObject) -> bytes:
    """Cut, changed, or from another time."""
    how = data.draw(st.sampled_from(["cut", "flip", "noise", "empty", "other", "newer"]))
    if how == "cut":
        return content[: data.draw(st.integers(0, max(0, len(content) - 1)))]
    if how == "flip" and content:
        place = data.draw(st.integers(0, len(content) - 1))
        return content[:place] + bytes([content[place] ^ (1 << data.draw(st.integers(0, 7)))]) + content[place + 1 :]
    if how == "noise":
        return data.draw(st.binary(max_size=80))
    if how == "other":
        return data.draw(st.sampled_from([b"[]", b"3", b'"x"', b"null", b"{}", b'{"status": 7}', b'{"run": {}}', b"a,b\n1,2\n"]))
    if how == "newer":
        return content.replace(b'"width"', b'"breadth"').replace(b"run_id", b"identity").replace(b'"status"', b'"state"')
    return b""


NOT_RECORDS = "cache figures trunks logs report.html samples.png diffusion-* mar-* masked-token-*".split()
RECORDS = ["plan.csv", "experiment.json", "table.csv", "run.json", "metrics.jsonl", "evals.jsonl", "weights.safetensors"]


@hostile(80)
@given(data=st.data())
def test_records_that_are_damaged(
    swept: Path, data: st.DataObject, count: dict[str, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    count["records"] = count.get("records", 0) + 1
    folder = tmp_path_factory.mktemp("damaged")
    root = folder / "results"
    shutil.copytree(swept, root, ignore=shutil.ignore_patterns(*NOT_RECORDS))
    victim = data.draw(st.sampled_from(RECORDS))
    path = root / victim if (root / victim).exists() else sorted(root.glob(f"runs/*/{victim}"))[0]
    path.write_bytes(mutate(path.read_bytes(), data))
    run = next((root / "runs").iterdir())
    commands = {
        "plan.csv": ["table"],
        "experiment.json": ["status", "evaluate", "sample"],
        "table.csv": ["report"],
        "run.json": ["status", "table"],
        "metrics.jsonl": ["status"],
        "evals.jsonl": ["table"],
        "weights.safetensors": ["sample"],
    }
    stage = data.draw(st.sampled_from(commands[victim]))
    arguments = [stage, str(root)]
    if stage == "evaluate":
        arguments = [stage, str(root), "nothing"]
    if stage == "sample":
        arguments = [stage, str(path.parent if victim.startswith("weights") else run), "a red circle", "--num", "1"]
        arguments += ["--out", str(folder / "out.png")]
    if stage == "report" and path.read_bytes() == (swept / "table.csv").read_bytes():
        return
    before = files_of(folder)
    done = bench(*arguments)
    status, said = done.status, done.err
    assert status in (0, 2), (victim, stage, status, said)
    if status == 2:
        assert len(said.splitlines()) == 1, said
        assert said.startswith("paradigm-bench: "), said
        assert files_of(folder) == before


# -- tables with strange text

STRANGE = """<script>alert(1)</script> </script><script>x "><img/src=x/onerror=alert(1)> javascript:x {{7*7}} {%x%} $x_1$ =cmd|'A0
\u202e \\frac ${x} %s &lt; </td></table>""".split()
STRANGE_TEXT = st.one_of(TEXT, st.sampled_from([*STRANGE, "a\nb", "x" * 3000]))


@hostile(2)
@given(texts=st.lists(STRANGE_TEXT, min_size=6, max_size=6))
def test_text_of_tables_stays_text(
    swept: Path, texts: list[str], count: dict[str, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    frame = load_table(swept).query("method == 'next-token'")
    columns = ["run_id", "method", "paradigm", "error", "reference", "device"]
    for column, text in zip(columns, texts, strict=True):
        count["texts"] = count.get("texts", 0) + 1
        frame[column] = [f"{text}{index}" if column == "run_id" else text for index in range(len(frame))]
    results = Results(tmp_path_factory.mktemp("strange"))
    save_frame(frame, results.table)
    done = bench("report", str(results.root))
    status, said = done.status, done.err
    if status == 2:
        assert len(said.splitlines()) == 1
        return
    page = Tags((results.root / "report.html").read_text())
    assert page.scripts == Tags((swept / "report.html").read_text()).scripts
    assert not page.other
    assert all(source.startswith("data:image/png;base64,") for source in page.images)
    assert not [name for name in page.attributes if name.startswith("on")]


class Tags(HTMLParser):
    """What a page loads or runs."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts = 0
        self.images: list[str] = []
        self.other: list[str] = []
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.attributes |= {name for name, _ in attributes}
        if tag == "img":
            self.images.append(dict(attributes).get("src") or "")
        if tag in ("iframe", "object", "embed", "link", "base", "form"):
            self.other.append(tag)


# -- images


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    """One of every kind."""
    noise = Image.frombytes("RGB", (48, 40), torch.randint(256, (48 * 40 * 3,), dtype=torch.uint8).numpy().tobytes())
    found = []
    for kind, mode in (
        ("PNG", "RGB"),
        ("JPEG", "RGB"),
        ("JPEG", "CMYK"),
        ("GIF", "P"),
        ("WEBP", "RGBA"),
        ("TIFF", "I;16"),
        ("BMP", "1"),
    ):
        buffer = io.BytesIO()
        (Image.new("I;16", (48, 40), 4000) if mode == "I;16" else noise.convert(mode)).save(buffer, kind)
        found.append(buffer.getvalue())
    return found


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@hostile(130)
@given(data=st.data())
def test_images(pictures: list[bytes], data: st.DataObject, count: dict[str, int]) -> None:
    count["images"] = count.get("images", 0) + 1
    raw = data.draw(st.sampled_from(pictures))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw = raw[:place] + bytes([data.draw(st.integers(0, 255))]) + raw[place + 1 :]
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw)))]
    with contextlib.suppress(UnreadableError):
        image = decode_image(raw, 16)
        assert image.shape == (3, 16, 16)


# -- pickles


class Payload:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@hostile(20)
@given(protocol=st.integers(0, 5), depth=st.integers(0, 3), kind=st.sampled_from(["open", "system", "exec", "eval", "makedirs"]))
def test_pickles_are_not_executed(
    protocol: int, depth: int, kind: str, count: dict[str, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    count["pickles"] = count.get("pickles", 0) + 1
    folder = tmp_path_factory.mktemp("pickle")
    mark = folder / "executed"
    payload: Any = {
        "open": Payload(open, str(mark), "w"),
        "system": Payload(os.system, f"touch {mark}"),
        "exec": Payload(exec, f"open({str(mark)!r}, 'w')"),
        "eval": Payload(eval, f"open({str(mark)!r}, 'w')"),
        "makedirs": Payload(os.makedirs, str(mark)),
    }[kind]
    for _ in range(depth):
        payload = {"state_dict": [payload, torch.zeros(2)]}
    plain, zipped = folder / "plain.ckpt", folder / "zipped.ckpt"
    plain.write_bytes(pickle.dumps(payload, protocol=protocol))
    torch.save(payload, zipped, pickle_protocol=max(2, protocol))
    for path in (plain, zipped):
        with pytest.raises(Exception, match=r"."):
            torch.load(path, weights_only=True)
        with pytest.raises(ValueError, match=r"."):
            _from_checkpoint(path)
        with pytest.raises(ValueError, match=r"."):
            load_weights(torch.nn.Linear(1, 1), path, ema=True)  # type: ignore[arg-type]
    assert not mark.exists()
