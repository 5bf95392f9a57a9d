// The two charts: quality against compute, and quality against the cost of sampling.

const COSTS = { flops_per_sample: "FLOPs per sample", latency_ms_b1_p50: "latency at batch 1, ms", images_per_s: "images per second" };
const NARROW = 520;

const metricOptions = () => Object.entries(data.metrics).map(([name, metric]) => [name, capital(metric.label)]);
const visible = method => !hidden.has(method);

// Draws into a box again whenever a choice, a method or the width changes.
function chart(box, choices, draw, caption) {
  const state = (saved[box.id] ??= {});
  for (const { name, options, chosen } of choices) if (!options.some(([value]) => value === state[name])) state[name] = chosen;
  const bar = element("div", { className: "bar" });
  const figure = element("div", { className: "chart" }), note = element("p", { className: "note" });
  for (const { name, label, options } of choices)
    if (options.length > 1) bar.append(choice(label, options, state[name], value => { state[name] = value; redraw(); }));
  box.replaceChildren(bar, legend(), figure, note);
  let width = 0;
  function redraw() {
    const drawn = draw(state, Math.max(280, figure.clientWidth));
    interact(figure, drawn);
    note.textContent = caption(state);
  }
  new ResizeObserver(() => {
    if (figure.isConnected && figure.clientWidth !== width) { width = figure.clientWidth; redraw(); }
  }).observe(figure);
  listeners.push(redraw);
}

// One plot with the page's axes. `spots` are what a pointer or the arrow keys reach: {method, x, y, title, lines, row}.
function plot(width, x, y, marks, label) {
  const narrow = width < NARROW;
  return Plot.plot({
    width, height: Math.round(Math.min(460, Math.max(300, width * 0.5))), className: "plot",
    marginLeft: narrow ? 48 : 60, marginRight: 16, marginBottom: 44, marginTop: 28,
    style: { fontSize: narrow ? "11px" : "12px", background: "transparent" },
    ariaLabel: label,
    x: { tickFormat: tick, ticks: narrow ? 4 : 8, labelAnchor: "center", labelArrow: "none", ...x },
    y: { tickFormat: tick, ticks: 6, grid: true, labelArrow: "none", ...y },
    symbol: { domain: data.methods.map(each => each.name), range: data.methods.map(each => each.symbol) },
    marks,
  });
}

const dots = (spots, options) => Plot.dot(spots, { x: "x", y: "y", symbol: "method", stroke: spot => colorOf(spot.method), ...options });
const colored = spot => colorOf(spot.method);

// Scales that leave room around the data. A logarithmic axis of few exact values has its ticks there, a short one at even numbers;
// a share stays between 0 and 1.
function scale(values, logarithmic, label, { exact = false, share = false } = {}) {
  const [low, high] = d3.extent(values.filter(value => value !== null && Number.isFinite(value)));
  if (low === undefined) return { label, domain: [0, 1] };
  if (logarithmic && low > 0) {
    const pad = (high / low) ** 0.06 * 1.04, decades = Math.log10(high / low);
    const tried = [...new Set(values)];
    const few = tried.length <= 6 && exact ? { ticks: tried } : decades < 0.8 ? { ticks: d3.ticks(low, high, 5) } : {};
    return { label, type: "log", domain: [low / pad, high * pad], ...few };
  }
  const pad = (high - low || Math.abs(high) || 1) * 0.06, top = high <= 1 && share ? Math.min(1.01, high + pad) : high + pad;
  return { label, domain: [share ? Math.max(-0.01, low - pad) : low - pad, top] };
}

function drop(object) { return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined)); }

function drawTraining(state, width) {
  const metric = data.metrics[state.metric], axis = state.axis, spots = [], lines = [];
  for (const { row, best } of metric.points) {
    const method = valueOf(row, "method"), x = valueOf(row, axis), y = valueOf(row, state.metric);
    if (!visible(method) || x === null) continue;
    spots.push({ method, x, y, best, row, title: method,
      lines: [`${metric.label} ${textOf(row, state.metric)}`, `${data.axes[axis]} ${textOf(row, axis)}`,
        `width ${textOf(row, "width")}, seed ${textOf(row, "seed")}` + (best ? "" : ", not the best size"), textOf(row, "run_id")] });
  }
  for (const mean of metric.means) {
    const x = mean.x[axis];
    if (!visible(mean.method) || x === null) continue;
    const seeds = mean.rows.length;
    lines.push({ method: mean.method, x, y: mean.value, row: mean.rows[0], rows: mean.rows, mean: true,
      title: `${mean.method}, ${seeds === 1 ? "one seed" : `mean of ${seeds} seeds`}`,
      lines: [`${metric.label} ${mean.text}`, mean.interval_text ? `95 % interval ${mean.interval_text}` : null,
        `${data.axes[axis]} ${tick(Number(x.toPrecision(3)))}`].filter(text => text) });
  }
  const laws = axis === "flops_budget" ? metric.laws.filter(law => visible(law.method)) : [];
  const curves = laws.flatMap(law => law.points.map(([x, y, low, high]) => ({ method: law.method, x, y, low, high, beyond: x > law.top })));
  const limits = metric.limits.map(limit => limit.value);
  const y = scale([...spots, ...lines].map(spot => spot.y).concat(limits, curves.map(point => point.y)), metric.log, capital(metric.label), metric);
  const x = scale([...spots, ...lines, ...curves].map(spot => spot.x), true, data.axes[axis], { exact: axis === "flops_budget" });
  const [floor, ceiling] = y.domain, clip = value => Math.min(ceiling, Math.max(floor, value));
  const marks = [
    Plot.ruleY(limits, { stroke: "var(--muted)", strokeDasharray: "2 3" }),
    Plot.areaY(curves, { x: "x", y1: point => clip(point.low), y2: point => clip(point.high), z: "method", fill: colored, fillOpacity: 0.12 }),
    ...laws.flatMap(law => [false, true].map(beyond => Plot.line(curves.filter(point => point.method === law.method && (point.beyond === beyond || point.x === law.top)),
      { x: "x", y: "y", stroke: colorOf(law.method), strokeWidth: 1.5, strokeDasharray: beyond ? "2 4" : undefined }))),
    ...data.methods.filter(method => !laws.some(law => law.method === method.name)).map(method => Plot.line(lines.filter(spot => spot.method === method.name),
      drop({ x: "x", y: "y", stroke: colorOf(method.name), strokeWidth: 1.75, strokeDasharray: method.dash || undefined }))),
    dots(spots.filter(spot => !spot.best), { r: 3, strokeOpacity: 0.55, fill: "none" }),
    dots(spots.filter(spot => spot.best), { r: 3, strokeOpacity: 0.7, fill: colored, fillOpacity: 0.6 }),
    dots(lines, { r: 5.5, fill: colored }),
  ];
  return { svg: plot(width, drop(x), drop(y), marks, `${capital(metric.label)} against ${data.axes[axis]}`), spots: [...lines, ...spots] };
}

function captionTraining(state) {
  const metric = data.metrics[state.metric];
  const said = [`Large: mean over seeds of the best size at each budget, ${metric.setting}; small and filled: its seeds; hollow: other sizes.`];
  if (state.axis === "flops_budget" && metric.laws.length) said.push("Curves: the fitted law with its 95 % band, dotted beyond the data.");
  if (metric.limits.length) said.push("Dotted rule: what the autoencoder itself reaches.");
  return said.join(" ") + ` ${metric.higher ? "Higher" : "Lower"} is better. Point, or focus the chart and use the arrow keys; Enter or a click shows the run.`;
}

function drawCost(state, width) {
  const metric = data.metrics[state.metric], cost = state.cost, spots = [];
  if (cost === "flops_per_sample") {
    for (const point of metric.front) {
      if (!visible(point.method)) continue;
      const seeds = point.rows.length;
      spots.push({ method: point.method, x: point.cost, y: point.value, best: point.front, row: point.rows[0], rows: point.rows,
        title: point.method, lines: [`${metric.label} ${point.text}, ${seeds === 1 ? "one seed" : `mean of ${seeds} seeds`}`,
          `${point.cost_text} FLOPs per sample`, point.setting, point.front ? "on the method's front" : "beaten by another setting"] });
    }
  } else {
    for (const point of metric.speed) {
      const method = valueOf(point.row, "method");
      if (!visible(method)) continue;
      spots.push({ method, x: point[cost], y: valueOf(point.row, state.metric), best: true, row: point.row, title: method,
        lines: [`${metric.label} ${textOf(point.row, state.metric)}`, `${COSTS[cost]} ${tick(Number(point[cost].toPrecision(3)))}`,
          `seed ${textOf(point.row, "seed")}`, textOf(point.row, "run_id")] });
    }
  }
  const x = scale(spots.map(spot => spot.x), true, COSTS[cost]);
  const y = scale(spots.map(spot => spot.y), metric.log, capital(metric.label), metric);
  const marks = [
    ...(cost === "flops_per_sample" ? data.methods.map(method => Plot.line(
      d3.sort(spots.filter(spot => spot.best && spot.method === method.name), spot => spot.x),
      drop({ x: "x", y: "y", stroke: colorOf(method.name), strokeWidth: 1.5, strokeDasharray: method.dash || undefined }))) : []),
    dots(spots.filter(spot => !spot.best), { r: 3, strokeOpacity: 0.6, fill: "none" }),
    dots(spots.filter(spot => spot.best), { r: 5, fill: colored }),
  ];
  return { svg: plot(width, drop(x), drop(y), marks, `${capital(metric.label)} against ${COSTS[cost]}`), spots };
}

function captionCost(state) {
  const metric = data.metrics[state.metric];
  if (state.cost === "flops_per_sample")
    return "Guidance included, decoder excluded. Top budget, best size, validation conditions, means over seeds. Filled and joined: each method's sampler settings that no other of its settings beats in both cost and quality. Hollow: the other settings tried.";
  return `Top budget, best size, test conditions, a mark per training seed, ${metric.setting}. Runs whose setting has no measured speed are left out.`;
}

function drawCharts() {
  const metrics = metricOptions(), first = metrics[0]?.[0];
  const preferred = data.metrics.prompt_accuracy ? "prompt_accuracy" : first;
  const axes = Object.entries(data.axes), costs = Object.entries(COSTS).filter(([cost]) => Object.values(data.metrics).some(
    metric => cost === "flops_per_sample" ? metric.front.length : metric.speed.length));
  chart(document.getElementById("training-chart"), [
    { name: "metric", label: "Quality", options: metrics, chosen: preferred },
    { name: "axis", label: "against", options: axes, chosen: axes[0][0] },
  ], drawTraining, captionTraining);
  if (!costs.length) { document.getElementById("cost-section").hidden = true; return; }
  chart(document.getElementById("cost-chart"), [
    { name: "metric", label: "Quality", options: metrics.filter(([name]) => data.metrics[name].front.length || data.metrics[name].speed.length), chosen: preferred },
    { name: "cost", label: "against", options: costs, chosen: costs[0][0] },
  ], drawCost, captionCost);
}
