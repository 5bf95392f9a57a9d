// The run table: about ten columns, the others by choice; filter, groups, best values, and a CSV of what is shown.

const CONDITION = /^(\w+)(<=|>=|=|<|>)(.+)$/;
const GROUPS = { "": "nothing", method: "method", flops_budget: "budget", width: "width", seed: "seed", tuned_for: "sampler chosen for" };
let runTable = null;

function drawRuns() {
  const box = document.getElementById("run-table");
  const numRows = data.columns[0]?.values.length ?? 0;
  const state = runTable ?? { filter: "", group: "", sort: null, ascending: true, aimed: new Set() };
  const shown = new Set(saved.columns ?? data.columns.filter(each => each.shown).map(each => each.name));
  state.aimed = new Set();  // places of rows, which are others when the data has changed
  runTable = state;
  const count = element("span", { className: "note", role: "status" });
  const search = element("input", { type: "search", value: state.filter, placeholder: "mar fid<1 seed=0" });
  search.setAttribute("aria-label", "Filter: words, or a column with <, >, = and a value");
  search.addEventListener("input", () => { state.filter = search.value; render(); });
  const groups = Object.entries(GROUPS).filter(([name]) => name === "" || column(name));
  const download = element("button", { type: "button" }, "CSV of what is shown");
  const clear = element("button", { type: "button" }, "Reset");
  const picker = element("details", { className: "columns" }, element("summary", {}, "Columns"));
  const boxes = element("div");
  for (const each of data.columns) {
    const tickbox = element("input", { type: "checkbox", checked: shown.has(each.name) });
    tickbox.addEventListener("change", () => {
      if (tickbox.checked) shown.add(each.name); else shown.delete(each.name);
      saved.columns = [...shown];
      render();
    });
    boxes.append(element("label", { title: each.meaning }, tickbox, ` ${each.name}`));
  }
  picker.append(boxes);
  const table = element("table", { id: "runs" });
  const grouping = choice("Group by", groups, state.group, value => { state.group = value; render(); });
  box.replaceChildren(
    element("div", { className: "bar" }, element("label", {}, "Filter", search), grouping, download, clear, count), picker,
    element("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Run table" }, table));

  const columnsShown = () => data.columns.filter(each => shown.has(each.name));

  function passes(row) {
    if (state.aimed.has(row)) return true;
    if (hidden.has(valueOf(row, "method"))) return false;
    const texts = columnsShown().map(each => textOf(row, each.name).toLowerCase());
    return state.filter.trim().split(/\s+/).filter(word => word).every(word => {
      const condition = CONDITION.exec(word), found = condition && column(condition[1]);
      if (!found) return texts.some(text => text.includes(word.toLowerCase()));
      const value = found.values[row], wanted = found.kind === "number" ? Number(condition[3]) : condition[3];
      if (value === null) return false;
      return { "<": value < wanted, ">": value > wanted, "=": found.kind === "number" ? value === wanted : String(value).toLowerCase() === wanted.toLowerCase(),
        "<=": value <= wanted, ">=": value >= wanted }[condition[2]];
    });
  }

  function order(a, b) {
    if (state.sort === null) return a - b;
    const x = valueOf(a, state.sort), y = valueOf(b, state.sort);
    if (x === null || y === null) return (x === null) - (y === null);  // empty cells stay last
    const found = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
    return state.ascending ? found : -found;
  }

  // Of each budget the best value among the rows shown, by column.
  function bests(rows) {
    const found = new Map();
    for (const each of columnsShown().filter(one => one.higher !== undefined))
      for (const [budget, group] of d3.group(rows, row => valueOf(row, "flops_budget")))
        found.set(`${each.name} ${budget}`, (each.higher ? d3.max : d3.min)(group, row => each.values[row] ?? undefined));
    return found;
  }

  const visibleRows = () => d3.range(numRows).filter(passes).sort(order);

  function cell(each, row, best) {
    const wins = each.higher !== undefined && each.values[row] !== null && best.get(`${each.name} ${valueOf(row, "flops_budget")}`) === each.values[row];
    const classes = [each.kind === "number" ? "number" : "", each.name === "method" ? "sticky" : "", wins ? "best" : ""].filter(name => name);
    const made = element(each.name === "method" ? "th" : "td", { className: classes.join(" ") }, each.name === "method" ? element("span", {}, textOf(row, each.name)) : textOf(row, each.name));
    if (each.name === "method") made.scope = "row";
    if (wins) made.title = "best of this budget among the rows shown";
    return made;
  }

  function render() {
    const columns = columnsShown(), rows = visibleRows(), best = bests(rows);
    count.textContent = `${rows.length} of ${numRows} rows`;
    const head = element("tr", {}, ...columns.map(each => {
      const button = element("button", { type: "button", title: each.meaning }, each.name);
      button.dataset.column = each.name;
      button.addEventListener("click", () => {
        state.ascending = state.sort === each.name ? !state.ascending : true;
        state.sort = each.name;
        render();
        table.querySelector(`button[data-column="${each.name}"]`).focus();
      });
      const sorted = state.sort === each.name ? (state.ascending ? "ascending" : "descending") : "none";
      return element("th", { scope: "col", "aria-sort": sorted, className: [each.kind === "number" ? "number" : "", each.name === "method" ? "sticky" : ""].join(" ").trim() }, button);
    }));
    const body = element("tbody");
    for (const [name, group] of state.group ? d3.group(rows, row => textOf(row, state.group)) : [[null, rows]]) {
      if (name !== null) body.append(element("tr", { className: "group" }, element("th", { colSpan: columns.length, scope: "rowgroup" }, `${GROUPS[state.group]} ${name || "empty"}: ${group.length} rows`)));
      for (const row of group)
        body.append(element("tr", { id: `run-${row}`, tabIndex: -1, className: state.aimed.has(row) ? "aimed" : "" }, ...columns.map(each => cell(each, row, best))));
    }
    table.replaceChildren(element("thead", {}, head), body);
  }

  download.addEventListener("click", () => {
    const columns = columnsShown(), rows = visibleRows();
    const text = d3.csvFormatRows([columns.map(each => each.name), ...rows.map(row => columns.map(each => each.values[row] ?? ""))]);
    const link = element("a", { href: URL.createObjectURL(new Blob([text + "\n"], { type: "text/csv" })), download: "runs.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  clear.addEventListener("click", () => {
    runTable = saved.columns = null;
    drawRuns();
  });
  state.render = render;
  render();
}

// Unfolds the run table at some rows and goes there.
function openRows(rows) {
  document.getElementById("runs-section").open = true;
  runTable.aimed = new Set(rows);
  runTable.render();
  const first = document.getElementById(`run-${rows[0]}`);
  first.scrollIntoView({ block: "center" });
  first.focus({ preventScroll: true });
}
