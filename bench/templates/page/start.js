// Draws everything from the data, and keeps what a reader chose when the data changes.

function drawAll() {
  listeners.length = 0;
  for (const mark of document.querySelectorAll("[data-method].method:not(button)"))
    if (!mark.querySelector("svg") && methodOf(mark.dataset.method)) mark.prepend(swatch(mark.dataset.method));
  if (document.getElementById("training-chart") && data.methods.length) drawCharts();
  drawExplorer();
  drawRuns();
  listeners.push(() => runTable.render());
}

// A link to a folded section unfolds it.
function unfold() {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let each = target || null; each; each = each.parentElement) if (each.tagName === "DETAILS") each.open = true;
  if (target) target.scrollIntoView();
}

drawAll();
unfold();
addEventListener("hashchange", unfold);
addEventListener("click", event => { if (event.target.closest("nav a")) setTimeout(unfold); });
