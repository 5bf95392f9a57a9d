// Pointing at a chart: the nearest point's run beside the pointer, the same by arrow keys, and the way to the run table.

const REACH = 28, MEANS_FIRST = 6;  // pixels; a mean that lies on its seeds is meant

function interact(figure, { svg, spots }) {
  const tip = element("div", { className: "tip", hidden: true });
  const said = element("div", { className: "said", role: "status", "aria-live": "polite" });
  figure.replaceChildren(svg, tip, said);
  if (!spots.length) {
    figure.prepend(element("p", { className: "note" }, "Nothing to draw: no method that is shown has these values."));
    return;
  }
  const sx = svg.scale ? svg.scale("x") : null, sy = svg.scale ? svg.scale("y") : null;
  const drawing = svg.tagName === "svg" ? svg : svg.querySelector("svg.plot");
  const places = spots.map(spot => ({ spot, x: sx.apply(spot.x), y: sy.apply(spot.y) }))
    .filter(place => Number.isFinite(place.x) && Number.isFinite(place.y));
  const order = d3.sort(places, (a, b) => data.methods.findIndex(m => m.name === a.spot.method) - data.methods.findIndex(m => m.name === b.spot.method)
    || Number(!a.spot.mean) - Number(!b.spot.mean) || a.x - b.x);
  const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  ring.setAttribute("r", "9");
  ring.setAttribute("fill", "none");
  ring.setAttribute("stroke", "var(--ink)");
  ring.setAttribute("stroke-width", "1.5");
  ring.setAttribute("visibility", "hidden");
  drawing.append(ring);
  drawing.setAttribute("tabindex", "0");
  drawing.setAttribute("role", "application");
  drawing.setAttribute("aria-roledescription", "chart; arrow keys move from point to point, Enter shows the run");
  let current = null;

  function show(place, byKey = false) {
    current = place;
    ring.setAttribute("visibility", place ? "visible" : "hidden");
    tip.hidden = !place;
    if (!place) return;
    ring.setAttribute("cx", place.x);
    ring.setAttribute("cy", place.y);
    tip.replaceChildren(element("strong", {}, place.spot.title), ...place.spot.lines.map(line => element("span", {}, line)));
    const width = figure.clientWidth, box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(0, Math.min(width - box.width, place.x + 14 + box.width > width ? place.x - box.width - 14 : place.x + 14))}px`;
    tip.style.top = `${Math.max(0, place.y - box.height - 10)}px`;
    if (byKey) said.textContent = [place.spot.title, ...place.spot.lines].join(", ");
  }

  function nearest(event) {
    const box = drawing.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const found = d3.least(places, place => Math.hypot(place.x - x, place.y - y) - (place.spot.mean ? MEANS_FIRST : 0));
    return found && Math.hypot(found.x - x, found.y - y) <= REACH ? found : null;
  }

  drawing.addEventListener("pointermove", event => show(nearest(event)));
  drawing.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") show(null); });
  drawing.addEventListener("click", event => {
    const place = nearest(event);
    if (!place) return show(null);
    if (event.pointerType !== "touch") return openRows(place.spot.rows ?? [place.spot.row]);
    show(place);
    const button = element("button", { type: "button" }, "Show the run");
    button.addEventListener("click", () => openRows(place.spot.rows ?? [place.spot.row]));
    tip.append(button);
  });
  drawing.addEventListener("blur", () => show(null));
  drawing.addEventListener("keydown", event => {
    const at = order.indexOf(current);
    const methods = [...new Set(order.map(place => place.spot.method))];
    const next = { ArrowRight: at + 1, ArrowLeft: at < 0 ? order.length - 1 : at - 1, Home: 0, End: order.length - 1 }[event.key];
    if (next !== undefined) show(order[Math.max(0, Math.min(order.length - 1, next))], true);
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const step = event.key === "ArrowDown" ? 1 : -1, from = current ? methods.indexOf(current.spot.method) : -step;
      const method = methods[(from + step + methods.length) % methods.length], mine = order.filter(place => place.spot.method === method);
      show(d3.least(mine, place => Math.abs(place.x - (current?.x ?? 0))), true);
    } else if (event.key === "Escape") show(null);
    else if (event.key === "Enter" && current) openRows(current.spot.rows ?? [current.spot.row]);
    else return;
    event.preventDefault();
  });
}
