// The sample explorer: captions by methods and budgets, a real image beside, and what the judge says of each.

const FIRST = 4, MORE = 8;

function drawExplorer() {
  const box = document.getElementById("explorer"), found = data.samples;
  if (!box || !found) return;
  const groups = [...new Set(found.captions.map(caption => caption.group))];
  const budgets = found.budgets.map((budget, index) => [String(index), `${budget} FLOPs`]);
  const state = (saved.explorer ??= { group: "", budget: budgets.length ? budgets[budgets.length - 1][0] : "0", failures: false, most: FIRST });
  const failures = element("input", { type: "checkbox", checked: state.failures });
  failures.addEventListener("change", () => { state.failures = failures.checked; render(); });
  const count = element("span", { className: "note", role: "status" });
  const bar = element("div", { className: "bar" });
  if (groups.length > 1) bar.append(choice("Captions", [["", "all"], ...groups.map(group => [group, group])], state.group, value => { state.group = value; render(); }));
  if (budgets.length > 1) bar.append(choice("Budget", [...budgets, ["", "every budget"]], state.budget, value => { state.budget = value; render(); }));
  if (found.judged) bar.append(element("label", {}, failures, "failures first"));
  bar.append(count);
  const more = element("button", { type: "button" });
  more.addEventListener("click", () => {
    const next = state.most;
    state.most += MORE;
    render();
    cards.children[next].querySelector("h4").focus();
  });
  const cards = element("div", { className: "cards" });
  const sheet = element("style", {}, `.picture .image { background-image: url("${found.sheet}"); }`);
  box.replaceChildren(sheet, bar, legend(), cards, more, element("p", { className: "note" }, found.note));

  function image(place, label) {
    const made = element("div", { className: "image", role: "img", "aria-label": label });
    const column = place % found.columns, row = Math.floor(place / found.columns), side = 6;
    made.style.backgroundSize = `${found.columns * side}rem auto`;
    made.style.backgroundPosition = `${-column * side}rem ${-row * side}rem`;
    return made;
  }

  function picture(cell, caption) {
    const judged = cell.obeyed !== null, mark = cell.obeyed ? "\u2713" : "\u2717";
    const made = element("figure", { className: `picture${judged ? (cell.obeyed ? " obeyed" : " missed") : ""}` },
      image(cell.place, `${cell.method} for ${caption.text}`), element("span", { className: "name" }, cell.method));
    if (judged) made.append(element("span", { className: "verdict-mark" }, `${mark} ${cell.obeyed ? "obeyed" : "missed"}`), element("span", {}, cell.reason ? `: ${cell.reason}` : ""));
    return made;
  }

  function render() {
    const wanted = found.cells.filter(cell => visible(cell.method) && (state.budget === "" || cell.budget === Number(state.budget)));
    const byCaption = d3.group(wanted, cell => cell.caption);
    let captions = d3.range(found.captions.length).filter(index => state.group === "" || found.captions[index].group === state.group);
    const missed = index => (byCaption.get(index) ?? []).filter(cell => cell.obeyed === false).length;
    if (state.failures) captions = d3.sort(captions, index => -missed(index));
    const judged = captions.flatMap(index => byCaption.get(index) ?? []).filter(cell => cell.obeyed !== null);
    count.textContent = judged.length ? `${judged.filter(cell => cell.obeyed).length} of ${judged.length} images shown obey their caption` : "";
    const left = captions.length - state.most;
    more.hidden = left <= 0;
    more.textContent = `Show ${Math.min(left, MORE)} more of ${captions.length} captions`;
    cards.replaceChildren(...captions.slice(0, state.most).map(index => {
      const caption = found.captions[index], pictures = element("div", { className: "pictures" });
      if (caption.real !== null) pictures.append(element("figure", { className: "picture" }, image(caption.real, `real image for ${caption.text}`), element("span", { className: "name" }, "real image")));
      for (const [budget, cells] of d3.group(byCaption.get(index) ?? [], cell => cell.budget)) {
        if (state.budget === "" && found.budgets.length > 1) pictures.append(element("h5", {}, `${found.budgets[budget]} FLOPs`));
        pictures.append(...cells.map(cell => picture(cell, caption)));
      }
      const said = state.failures ? `, missed by ${missed(index)}` : "";
      return element("article", { className: "card" }, element("h4", { tabIndex: -1 }, caption.text, element("small", {}, caption.group + said)), pictures);
    }));
  }
  listeners.push(render);
  render();
}
