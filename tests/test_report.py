"""From table to verdict on tables with known laws: fits, claims, figures, and the page in a browser."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic
from matplotlib.figure import Figure

from bench.analysis.claims import judge, summary
from bench.analysis.comparison import Analysis, analyse, difference
from bench.report import figures
from bench.report.page import write_report
from bench.results.columns import COLUMNS, column_dictionary
from bench.results.folder import Results
from bench.results.table import load_table

BUDGETS = np.logspace(17, 19.5, 6)


def write(folder: Path, frame: pd.DataFrame) -> Results:
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_csv(folder / "table.csv", index=False)
    (folder / "experiment.json").write_text(json.dumps({"name": "synthetic", "budget": 3e19, "runs": {}}))
    return Results(folder)


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analyse(synthetic.table(BUDGETS), num_draws=300)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Results:
    results = write(tmp_path_factory.mktemp("report"), synthetic.table(BUDGETS))
    write_report(results)
    return results


def test_exponents_and_offsets_are_recovered(analysis: Analysis) -> None:
    """The best of five sizes lies a little above the true frontier's constant, not its exponent."""
    for method, (offset, _, exponent) in synthetic.LAWS.items():
        fit = analysis.fits("fid")[method]
        assert fit.exponent.low <= exponent <= fit.exponent.high
        assert fit.offset.low <= 1.02 * offset
        assert fit.offset.high >= 0.98 * offset


def test_surfaces_are_fitted_where_the_grid_allows(analysis: Analysis) -> None:
    for fit in analysis.surfaces("fid").values():
        assert fit.law is not None
        assert 0 < fit.allocation.low < fit.allocation.high < 1
    few = analyse(synthetic.table(BUDGETS, num_sizes=2), num_draws=50)
    assert all("no surface" in fit.missing for fit in few.surfaces("fid").values())


def test_the_crossing_of_two_methods_is_found(analysis: Analysis) -> None:
    """Diffusion overtakes next-token where 0.5 + 20 x^-.5 = 1 + 6 x^-.25, x = C / 1e17."""
    x = np.logspace(0, 4, 100_000)
    place = 1e17 * x[np.argmin(np.abs(0.5 + 20 * x**-0.5 - 1 - 6 * x**-0.25))]
    found = next(c for c in analysis.crossings("fid") if {c.first, c.second} == {"diffusion", "next-token"})
    assert found.quantiles is not None
    assert found.quantiles[0] <= place <= found.quantiles[2]


def test_isoflop_minima_follow_the_best_size(analysis: Analysis) -> None:
    for minima in analysis.minima("fid").values():
        assert len(minima) == len(BUDGETS)
        for found in minima:
            assert found.num_params == pytest.approx(1e6 * np.sqrt(found.budget / 1e17), rel=0.15)


def test_claims_are_judged_as_the_table_was_made(analysis: Analysis) -> None:
    verdicts = {claim.text: claim for claim in judge(analysis)}
    for text, verdict in {
        "Token prediction follows prompts better than diffusion": "supported",
        "Next-token prediction leads the token methods on prompt following": "supported",
        "At low compute next-token prediction has the best image quality": "supported",
        "Diffusion catches up with next-token prediction on FID as compute grows": "supported",
        "Next-token prediction needs the least compute per sample": "supported",
        "Diffusion has the lowest latency": "supported",
        "Next-token prediction has the highest throughput": "supported",
        "Averaging the weights helps diffusion most": "supported",
        "Continuous tokens with Diffusion Loss beat cross-entropy on codes": "supported",
        "Random order beats raster order under causal attention": "not tested",
    }.items():
        assert verdicts[text].verdict == verdict, verdicts[text]
        assert verdicts[text].evidence


def test_the_same_claims_contradicted_and_undecided() -> None:
    frame = synthetic.table(BUDGETS)
    frame["method"] = frame["method"].replace({"diffusion": "next-token", "next-token": "diffusion"})
    verdicts = {claim.text: claim.verdict for claim in judge(analyse(frame))}
    assert verdicts["Diffusion catches up with next-token prediction on FID as compute grows"] == "contradicted"
    assert verdicts["Diffusion has the lowest latency"] == "contradicted"
    assert verdicts["Averaging the weights helps diffusion most"] != "supported"
    loud = judge(analyse(synthetic.table(BUDGETS, noise=1.0)))
    assert {c.verdict for c in loud if "prompt following" in c.text} == {"undecided"}
    single = judge(analyse(synthetic.table(BUDGETS, num_seeds=1)))
    assert all(c.verdict in ("undecided", "not tested") or "counted" in c.evidence or "runs" in c.evidence for c in single)


def test_difference_is_the_pooled_t_interval() -> None:
    """Against SciPy's own two-sample interval for two groups."""
    from scipy.stats import ttest_ind

    a, b = np.array([1.0, 1.3, 1.1]), np.array([0.4, 0.7])
    found = difference({"a": a, "b": b}, "a", "b", ratio=False)
    reference = ttest_ind(a, b).confidence_interval(0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high))


def test_the_default_ladder_gives_a_sentence_and_no_exponent() -> None:
    found = analyse(synthetic.table(np.logspace(11, 12, 3), num_sizes=2, num_seeds=1))
    assert all(fit.law is None for fit in found.fits("fid").values())
    assert "no exponent: a fit needs 6 budgets (there are 3)" in summary(found)


def test_figures_are_not_empty(report: Results) -> None:
    from PIL import Image

    pictures = sorted(report.figures.glob("*.png"))
    assert {p.stem for p in pictures} >= {
        "fid-against-training-flops",
        "kid-against-training-flops",
        "prompt-accuracy-against-training-flops",
        "isoflop-fid",
        "best-sizes-fid",
        "fid-against-sampling-cost",
        "seen-against-held-out",
        "attributes",
        "sampling-flops-by-part",
        "averaged-against-raw-weights",
    }
    for path in pictures:
        assert path.with_suffix(".svg").exists()
        with Image.open(path) as image:
            colors = image.convert("RGB").getcolors(maxcolors=1 << 24)
        assert colors is not None
        assert len(colors) > 20


def test_equal_tables_give_equal_files(report: Results, tmp_path: Path) -> None:
    again = write(tmp_path / "again", synthetic.table(BUDGETS))
    write_report(again)
    for path in sorted(report.figures.iterdir()):
        assert path.read_bytes() == (again.figures / path.name).read_bytes(), path.name
    assert (report.root / "report.html").read_text() == (again.root / "report.html").read_text()


def test_every_axis_is_named(analysis: Analysis) -> None:
    for name, draw in figures.all_figures(analysis).items():
        figure = draw()
        assert isinstance(figure, Figure)
        axes = [a for a in figure.axes if a.get_visible()]
        assert any(a.get_ylabel() for a in axes) or name == "sampling-flops-by-part", name
        assert any(a.get_xlabel() for a in axes) or name == "attributes", name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.assign(fid=np.where(f["method"] == "mar", np.nan, f["fid"])), "finished runs have no fid"),
        (lambda f: f[f["flops_budget"] == f["flops_budget"].max()], "one budget only"),
        (lambda f: f.assign(status="failed", error="out of memory"), "no finished run on test captions"),
        (lambda f: f.assign(protocol=np.where(f["seed"] == 2, "q", "p")), "rows of other protocols (q) are left out"),
    ],
    ids=["nan", "one-budget", "all-failed", "protocols"],
)
def test_poor_tables_say_so_and_draw_what_is_left(change, said: str, tmp_path: Path) -> None:
    results = write(tmp_path, change(synthetic.table(BUDGETS, num_sizes=2, raw=False)))
    found = write_report(results)
    assert any(said in note for note in found.notes)
    assert all("\n" not in note for note in found.notes)
    page = (tmp_path / "report.html").read_text()
    assert said.split("(")[0].strip() in page
    if found.methods:
        assert (results.figures / "prompt-accuracy-against-training-flops.png").exists()


def test_missing_columns_are_one_line(tmp_path: Path) -> None:
    results = write(tmp_path, synthetic.table(BUDGETS).drop(columns=["fid", "kid"]))
    with pytest.raises(ValueError, match=r"lacks the columns fid, kid; rebuild it with"):
        write_report(results)


HOSTILE = '<script>document.title="taken"</script>"><img src=x onerror=alert(1)>'


def test_text_of_the_table_cannot_run(tmp_path: Path) -> None:
    frame = synthetic.table(BUDGETS, num_sizes=2, raw=False)
    frame["method"] = frame["method"].replace({"mar": HOSTILE})
    frame["error"] = HOSTILE
    page = (write_report(write(tmp_path, frame)) and (tmp_path / "report.html").read_text()) or ""
    assert "<script>document" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;document" in page


CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
PROBE = """
<script>
window.problems = [];
window.addEventListener("error", event => window.problems.push(event.message));
const show = (name, value) => {
  const p = document.createElement("p");
  p.id = name;
  p.textContent = value;
  document.body.append(p);
};
window.addEventListener("load", () => {
  const column = [...document.querySelectorAll("#runs th")].findIndex(h => h.textContent.trim() === "fid");
  const values = () => [...document.querySelectorAll("#runs tbody tr")].map(r => r.cells[column].dataset.value).join(" ");
  const button = document.querySelectorAll("#runs th button")[column];
  button.focus();
  show("focused", document.activeElement === button);
  button.click(); show("ascending", values());
  button.click(); show("descending", values());
  show("sorted", document.querySelectorAll("#runs th")[column].getAttribute("aria-sort"));
  show("overflow", document.documentElement.scrollWidth - document.documentElement.clientWidth);
  show("broken", [...document.images].filter(image => !image.complete || !image.naturalWidth).length);
  show("problems", window.problems.join("; "));
});
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)], ids=["desktop", "phone"])
def test_the_page_in_a_browser(report: Results, width: int, height: int, tmp_path: Path) -> None:
    """Opens, sorts by a click on a focusable header, overflows at no width, logs no error and fetches nothing."""
    page = (report.root / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    probed = tmp_path / "page.html"
    probed.write_text(page.replace("</body>", PROBE + "</body>"))
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},{height}", "--dump-dom"]
    command += ["--enable-logging=stderr", "--v=0", "--virtual-time-budget=5000", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run([*command, probed.as_uri()], capture_output=True, text=True, check=True, timeout=120)
    found = dict(re.findall(r'<p id="(\w+)">([^<]*)</p>', done.stdout))
    ascending = [float(v) for v in found["ascending"].split()]
    assert len(ascending) == 360
    assert ascending == sorted(ascending)
    assert [float(v) for v in found["descending"].split()] == ascending[::-1]
    assert (found["sorted"], found["focused"], found["broken"], found["problems"]) == ("descending", "true", "0", "")
    assert int(found["overflow"]) <= 0
    assert "CONSOLE" not in done.stderr


def test_the_column_dictionary_is_current() -> None:
    """Regenerate it with: python -c "from bench.results import column_dictionary as d; print(d(), end='')" > docs/columns.md"""
    assert (Path(__file__).parent.parent / "docs" / "columns.md").read_text() == column_dictionary()


def test_columns_are_documented_on_the_page(report: Results) -> None:
    page = (report.root / "report.html").read_text()
    assert all(f"<dt>{name}</dt>" in page for name in COLUMNS)


def test_hashes_that_look_like_numbers_stay_text(tmp_path: Path) -> None:
    """A protocol of digits and one e is no float; found when one was read as infinity."""
    frame = synthetic.table(BUDGETS).assign(protocol="12e34567", git_sha="000000123456")
    frame.to_csv(tmp_path / "table.csv", index=False)
    found = load_table(tmp_path)
    assert set(found["protocol"]) == {"12e34567"}
    assert set(found["git_sha"]) == {"000000123456"}
