// While a sweep runs: how far it is, the loss curves, and a new page content whenever a run is done.

const POLL_MS = 2000;
let shownVersion = null;

function bar(share, label) {
  const made = element("progress", { max: 1, value: share });
  made.setAttribute("aria-label", label);
  return made;
}

function showState(state) {
  const box = document.getElementById("live"), runs = state.runs;
  const total = d3.sum(runs, run => run.flops_total), left = d3.sum(runs, run => run.flops_left);
  const share = total ? 1 - left / total : 1, busy = runs.filter(run => ["training", "evaluating", "trained", "interrupted"].includes(run.status));
  const waiting = runs.filter(run => ["missing", "queued"].includes(run.status));
  const workers = element("div", { className: "workers" }, ...busy.map(run => element("div", {},
    element("span", { className: "method" }, methodOf(run.method) ? swatch(run.method) : "", `${run.method}, width ${run.width}, seed ${run.seed}, ${tick(run.budget)} FLOPs`),
    bar(run.share, `${run.run_id}, ${run.status}`),
    element("span", { className: "note" }, `${run.status} ${d3.format(".0%")(run.share)}` + (run.flops_per_s ? `, ${d3.format(".2~e")(run.flops_per_s).replace("e+", "e")} FLOP/s` : "")))));
  const queue = element("details", { open: box.querySelector("details.queue")?.open ?? false, className: "queue" }, element("summary", {}, `${waiting.length} runs wait`),
    element("ul", {}, ...waiting.map(run => element("li", {}, `${run.run_id} (${run.status})`))));
  const curves = element("div", { className: "curves" });
  box.replaceChildren(element("p", { role: "status" }, state.summary), bar(share, "share of the training FLOPs"),
    element("p", { className: "note" }, `${d3.format(".1%")(share)} of ${tick(Number(total.toPrecision(3)))} training FLOPs`), workers, waiting.length ? queue : "", curves);
  const width = curves.clientWidth < NARROW ? curves.clientWidth : Math.min(360, curves.clientWidth / 2 - 12);
  for (const [method, mine] of d3.group(runs.filter(run => run.loss.length > 1), run => run.method)) {
    const points = mine.flatMap(run => run.loss.map(([x, y]) => ({ x, y, run: run.run_id })));
    curves.append(element("figure", {}, element("figcaption", {}, `${method}: training loss, in its own unit`), Plot.plot({
      width, height: 150, marginLeft: 44, x: { tickFormat: tick, ticks: 4, label: "training FLOPs" }, y: { ticks: 4, grid: true, label: null, tickFormat: tick },
      ariaLabel: `training loss of ${method}`, style: { background: "transparent" },
      marks: [Plot.line(points, { x: "x", y: "y", z: "run", stroke: methodOf(method) ? colorOf(method) : "currentColor", strokeWidth: 1.25 })] })));
  }
}

// Takes over what a new page says, and keeps what the reader has chosen and unfolded.
async function refresh() {
  const fresh = new DOMParser().parseFromString(await (await fetch("/")).text(), "text/html");
  const open = new Set([...document.querySelectorAll("details[id][open]")].map(each => each.id));
  for (const name of ["header > p.note", "header > nav", "main"]) {
    const old = document.querySelector(name), now = fresh.querySelector(name);
    if (old && now) old.replaceWith(document.adoptNode(now));
  }
  data = JSON.parse(fresh.getElementById("data").textContent);
  for (const id of open) { const each = document.getElementById(id); if (each) each.open = true; }
  drawAll();
}

async function poll() {
  try {
    const answer = await fetch("/state");
    if (!answer.ok) throw new Error(await answer.text());
    const state = await answer.json();
    if (shownVersion !== null && shownVersion !== state.version) await refresh();
    shownVersion = state.version;
    showState(state);
  } catch (problem) {
    const box = document.getElementById("live");
    if (!box.querySelector(".lost")) box.prepend(element("p", { className: "lost" }, `No news: ${problem.message}`));
  }
  setTimeout(poll, POLL_MS);
}

poll();
