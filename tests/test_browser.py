"""The page in a browser."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from installed import lacks

from bench.results.folder import Results

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


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)], ids=["desktop", "phone"])
def test_the_page_in_a_browser(report: Results, width: int, height: int, tmp_path: Path) -> None:
    """Opens, sorts by a click on a focusable header, overflows at no width, logs no error and fetches nothing."""
    page = (report.root / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    probed = tmp_path / "page.html"
    probed.write_text(page.replace("</body>", PROBE + "</body>"))
    if CHROMIUM is None:
        lacks("Chromium is not on the PATH")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},{height}", "--dump-dom"]
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
