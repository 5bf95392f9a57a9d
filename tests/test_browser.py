"""The page in a browser: what a pointer and what keys do, at two widths, light and dark; it logs nothing and asks for nothing."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import synthetic
from browser import CHROMIUM, Page, chromium
from installed import lacks

from bench.progress import format_number
from bench.results.folder import Results
from bench.results.table import load_table

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if CHROMIUM is None:
        lacks("Chromium is not on the PATH")
    with chromium(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture(params=[("desktop", False), ("phone", True)], ids=["desktop-light", "phone-dark"])
def page(browser: Page, report: Results, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The report, opened anew; afterwards it has logged nothing and asked for nothing but itself."""
    size, dark = request.param
    browser.problems.clear()
    browser.requests.clear()
    browser.open(report.report.as_uri(), *SIZES[size], dark=dark)
    yield browser
    assert browser.problems == []
    assert {address for address in browser.requests if not address.startswith("data:")} == {report.report.as_uri()}


def spot(page: Page, method: str) -> tuple[float, float]:
    """Where the training chart draws a method's mean at the top budget, in the window."""
    found = page.run(f"""(() => {{
        const svg = document.querySelector("#training-chart svg.plot");
        svg.scrollIntoView({{block: "center"}});
        const box = svg.getBoundingClientRect();
        const mean = data.metrics.prompt_accuracy.means.filter(each => each.method === {method!r}).at(-1);
        return [box.x + svg.scale("x").apply(mean.x.flops_budget), box.y + svg.scale("y").apply(mean.value)];
    }})()""")
    return found[0], found[1]


def rows(page: Page, column: str) -> list[str]:
    """The texts of a column of the run table, as shown."""
    return page.run(f"""(() => {{
        const place = [...document.querySelectorAll("#runs thead th")].findIndex(each => each.textContent === {column!r});
        return [...document.querySelectorAll("#runs tbody tr:not(.group)")].map(row => row.cells[place].textContent);
    }})()""")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_fits_and_follows_the_color_scheme(browser: Page, report: Results, size: str, dark: bool) -> None:
    browser.problems.clear()
    browser.open(report.report.as_uri(), *SIZES[size], dark=dark)
    assert browser.run("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    assert browser.run("document.title") == "paradigm-bench: synthetic at BUDGET=3e19"
    assert browser.run("getComputedStyle(document.body).backgroundColor") == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
    dot = browser.run("getComputedStyle(document.querySelector('#training-chart [aria-label=dot] path')).stroke")
    assert dot == ("rgb(79, 168, 227)" if dark else "rgb(0, 114, 178)")
    assert browser.run("[...document.querySelectorAll('details.section')].every(section => !section.open)")
    assert browser.problems == []


def test_a_pointer_shows_the_run_and_a_click_leads_to_its_row(page: Page, report: Results) -> None:
    frame = load_table(report.root)
    page.hover(*spot(page, "mar"))
    said = page.run("document.querySelector('#training-chart .tip').innerText")
    assert said.startswith("mar, mean of 3 seeds")
    mean = page.run("data.metrics.prompt_accuracy.means.filter(each => each.method === 'mar').at(-1)")
    assert f"prompt accuracy {format_number(mean['value'])}" in said
    box = "document.querySelector('#training-chart .tip').getBoundingClientRect()"
    assert page.run(f"{box}.left >= 0 && {box}.right <= innerWidth")
    page.click(*spot(page, "mar"))
    assert page.run("document.getElementById('runs-section').open")
    assert page.run("document.activeElement.matches('#runs tr.aimed')")
    assert page.run("document.querySelectorAll('#runs tr.aimed').length") == 3
    method, budget = rows(page, "method"), rows(page, "flops_budget")
    aimed = page.run("[...document.querySelectorAll('#runs tbody tr')].map(row => row.classList.contains('aimed'))")
    assert {(m, b) for m, b, hit in zip(method, budget, aimed, strict=True) if hit} == {
        ("mar", format_number(frame["flops_budget"].max()))
    }


def test_arrow_keys_walk_the_chart(page: Page) -> None:
    page.run("document.querySelector('#training-chart svg.plot').focus()")
    page.press("ArrowRight")
    assert page.run("document.querySelector('#training-chart .said').textContent").startswith("diffusion, mean of 3 seeds")
    page.press("ArrowDown")
    assert page.run("document.querySelector('#training-chart .tip').innerText").startswith("next-token")
    page.press("Escape")
    assert page.run("document.querySelector('#training-chart .tip').hidden")
    page.press("ArrowRight")
    page.press("Enter")
    assert page.run("document.activeElement.matches('#runs tr.aimed')")


def test_the_legend_hides_a_method_everywhere(page: Page) -> None:
    dots = "document.querySelectorAll('#training-chart [aria-label=dot] path').length"
    before = page.run(dots)
    page.click(*page.center("#training-chart .legend button[data-method=mar]"))
    assert (
        page.run("[...document.querySelectorAll('.legend button[data-method=mar]')].map(b => b.getAttribute('aria-pressed'))")
        == ["false"] * 3
    )
    assert page.run(dots) == before * 3 // 4
    assert "mar" not in rows(page, "method")
    assert "mar" not in page.run("[...document.querySelectorAll('#explorer .name')].map(each => each.textContent)")
    page.run("document.querySelector('#explorer .legend button[data-method=mar]').focus()")
    page.press(" ")
    page.settle()
    assert page.run(dots) == before


def test_metric_and_axis_switch(page: Page) -> None:
    label = "document.querySelector('#training-chart svg.plot').getAttribute('aria-label')"
    assert page.run(label) == "Prompt accuracy against training FLOPs per run"
    page.run("document.querySelector('#training-chart select').focus()")
    page.type("FID")
    assert page.run(label) == "FID against training FLOPs per run"
    assert page.run("document.querySelectorAll('#training-chart [aria-label=area] path').length") == 4  # a band per fitted law
    page.run("document.querySelectorAll('#training-chart select')[1].focus()")
    page.type("trainable")
    assert page.run(label) == "FID against trainable parameters"
    page.run("document.querySelectorAll('#cost-chart select')[1].focus()")
    page.type("images")
    assert (
        page.run("document.querySelector('#cost-chart svg.plot').getAttribute('aria-label')")
        == "Prompt accuracy against images per second"
    )
    assert page.run("document.querySelectorAll('#cost-chart [aria-label=dot] path').length") == 12


def test_the_run_table_sorts_filters_groups_and_is_saved(page: Page) -> None:
    page.run("document.getElementById('runs-section').open = true")
    page.click(*page.center("#runs button[data-column=fid]"))
    values = [float(text) for text in rows(page, "fid")]
    assert len(values) == 360
    assert values == sorted(values)
    page.press("Enter")  # the header keeps the focus
    page.settle()
    assert [float(text) for text in rows(page, "fid")] == values[::-1]
    assert page.run("document.querySelector('#runs th[aria-sort=descending]').textContent") == "fid"
    page.run("document.querySelector('#run-table input[type=search]').focus()")
    page.call("Input.insertText", text="mar fid<3 seed=1")
    kept = rows(page, "fid")
    assert set(rows(page, "method")) == {"mar"}
    assert set(rows(page, "seed")) == {"1"}
    assert 0 < len(kept) < 30
    assert all(float(text) < 3 for text in kept)
    assert page.run("document.querySelectorAll('#runs td.best').length") > 0
    page.run("document.querySelector('#run-table .columns').open = true")
    labels = "[...document.querySelectorAll('#run-table .columns label')]"
    page.run(f"{labels}.find(each => each.textContent.trim() === 'run_id').querySelector('input').click()")
    page.run("HTMLAnchorElement.prototype.click = () => {}")  # what would be saved is read instead
    page.run("URL.createObjectURL = blob => { blob.text().then(text => { window.saved_text = text; }); return 'data:,'; }")
    page.click(*page.center("#run-table .bar button"))
    page.settle()
    found = list(csv.DictReader(io.StringIO(page.run("window.saved_text"))))
    assert [format_number(float(row["fid"])) for row in found] == kept
    assert "run_id" in found[0]
    page.run("document.querySelector('#run-table select').focus()")
    page.type("budget")
    assert page.run("document.querySelectorAll('#runs tr.group').length") == len({row["flops_budget"] for row in found})


def test_the_method_stays_in_view(page: Page) -> None:
    page.run("document.getElementById('runs-section').open = true")
    place = page.run("""(() => {
        const box = document.querySelector('#run-table .scroll');
        box.scrollLeft = 400;
        return document.querySelector('#runs tbody .sticky').getBoundingClientRect().left - box.getBoundingClientRect().left;
    })()""")
    assert 0 <= place <= 2


def test_samples_are_explored(page: Page, report: Results) -> None:
    captions = "[...document.querySelectorAll('#explorer h4')].map(each => each.firstChild.textContent)"
    assert page.run(captions) == list(synthetic.CAPTIONS[:4])
    page.click(*page.center("#explorer > button"))
    assert page.run(captions) == list(synthetic.CAPTIONS)
    assert page.run("document.title") == "paradigm-bench: synthetic at BUDGET=3e19"  # a caption with a script in it is text
    content = json.loads(page.run("JSON.stringify(data.samples.cells)"))
    top = max(cell["budget"] for cell in content)
    shown = [cell for cell in content if cell["budget"] == top]
    marks = page.run("[...document.querySelectorAll('#explorer .verdict-mark')].map(each => each.textContent)")
    assert marks == ["\u2713 obeyed" if cell["obeyed"] else "\u2717 missed" for cell in shown]
    assert page.run("document.querySelector('#explorer .missed').innerText").endswith(
        ": one wrong color; seen: a small green circle"
    )
    assert (
        page.run("document.querySelectorAll('#explorer .card:first-child .picture').length") == 5
    )  # a real image and four methods
    page.run("document.querySelector('#explorer input[type=checkbox]').focus()")
    page.press(" ")
    page.settle()
    missed = [sum(not cell["obeyed"] for cell in shown if cell["caption"] == place) for place in range(len(synthetic.CAPTIONS))]
    first = page.run(captions)[0]
    assert missed[synthetic.CAPTIONS.index(first)] == max(missed)
    page.run("document.querySelector('#explorer select').focus()")
    page.type("held")
    assert set(page.run(captions)) == set(synthetic.CAPTIONS[4:])
    page.run("document.querySelectorAll('#explorer select')[1].focus()")
    page.type("every")
    assert page.run("document.querySelectorAll('#explorer .card:first-child h5').length") == 2


def test_nothing_else_may_run(browser: Page, report: Results, tmp_path: Path) -> None:
    """Even a script that got into the file does not run, and nothing can be fetched."""
    page = report.report.read_text()
    tampered = tmp_path / "page.html"
    tampered.write_text(
        page.replace("</body>", "<script>document.title = 'taken'</script><img src='http://127.0.0.1:9/x'></body>")
    )
    browser.open(tampered.as_uri(), 800, 600)
    assert browser.run("document.title") != "taken"
    assert any("Content Security Policy" in problem for problem in browser.problems)
    assert browser.run("fetch('http://127.0.0.1:9/').then(() => 'fetched', () => 'refused')") == "refused"
