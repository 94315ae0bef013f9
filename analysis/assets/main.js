// Start: choose columns, draw the views, wire the controls.
const VIEWS = { map: BlockMapPlot, ledger: LedgerPlot, pulse: PulsePlot, requests: RequestsPlot };

// with fewer snapshots than that it shows that the block map between them is that of the one before
const FEW = 100;

function caption(view, column) {
  const about = column.facts;
  const right = {
    map: () => `${about.num_blocks.toLocaleString("en-US")} blocks of ${about.block_size === 1 ? "one slot" : `${about.block_size.toLocaleString("en-US")} slots`}${about.map && about.map.shown < FEW ? `, seen ${about.map.shown === 1 ? "once" : `${about.map.shown} times`}` : ""}`,
    ledger: () => `${((100 * about.ledger.mean.live) / about.capacity).toFixed(1)} % live on average`,
    pulse: () => LANES.filter(([kinds]) => kinds.some((kind) => about.events.counts[kind])).map(([kinds, name]) => `${number(kinds.reduce((sum, kind) => sum + about.events.counts[kind], 0))} ${name}`).join(", ") || (window.innerWidth < 1100 ? "no memory event" : "nothing preempted, refused or evicted"),
    requests: () => `${column.requests.request_id.length < about.requests ? `${number(column.requests.request_id.length)} of ` : ""}${number(about.requests)} request${about.requests === 1 ? "" : "s"}`,
  }[view]();
  return el("div", { className: "caption" }, el("b", { title: about.label }, about.label), el("span", {}, right));
}

// of how many requests the page keeps how many; nothing if it keeps all
const ofAll = () => (facts.requests.shown < facts.requests.total ? `${number(facts.requests.shown)} of ${number(facts.requests.total)} requests` : "");

// whether two columns show the same requests, which those of two directories need not
const alike = (one, two) => one.facts.draw === two.facts.draw;

let drawing = 0;
// the time axis is as long as the runs shown; a window inside it stays where it is
function fit() {
  const whole = state.range[0] === 0 && state.range[1] === state.until;
  state.until = Math.max(1e-3, ...state.shown.map((index) => facts.columns[index].until));
  if (whole || state.range[0] >= state.until) state.range = [0, state.until];
  state.range[1] = Math.min(state.range[1], state.until);
}

async function drawColumns() {
  const turn = ++drawing;
  fit();
  await Promise.all(state.shown.map((index) => columns[index].load()));
  if (turn !== drawing) return;
  for (const plot of plots) Plotly.purge(plot.div);
  plots = [];
  document.documentElement.style.setProperty("--columns", state.shown.length);
  for (const cells of document.querySelectorAll(".cells")) {
    cells.replaceChildren();
    for (const index of state.shown) {
      const cell = el("div", { className: "cell" }, caption(cells.dataset.view, columns[index]));
      cells.append(cell);
      plots.push(new VIEWS[cells.dataset.view](cell, columns[index]));
      if (cells.dataset.view === "requests") cell.append(notableList(columns[index]));
    }
  }
  const strip = byId("strip");
  strip.replaceChildren();
  byId("strip-box").hidden = state.shown.length < 2;
  if (state.shown.length > 1) {
    const [one, two] = state.shown.map((index) => columns[index]);
    const plot = alike(one, two) ? new StripPlot(strip, one, two) : null;
    if (plot && plot.points.length) plots.push(plot); else strip.replaceChildren();
    byId("strip-note").textContent = !plot ? `${one.facts.label} and ${two.facts.label} did not serve the same requests.`
      : !plot.points.length ? "No request finished with both."
        : `End-to-end latency of each request by its arrival: ${two.facts.label} minus ${one.facts.label}. Below zero, ${two.facts.label} is faster.${ofAll() ? ` Of ${ofAll()}.` : ""}`;
  }
  for (const plot of plots) {
    await plot.draw();
    follow(plot);
    if (plot instanceof BlockMapPlot) document.documentElement.dataset.ready = String(Math.round(performance.now())); // for tests
  }
  readout();
  details();
  mapNote();
  countRequests();
  tellOmitted();
}

function countRequests() {
  const gantt = plots.find((plot) => plot instanceof RequestsPlot);
  const inside = gantt ? `${number(gantt.seen.length)} ${ofAll() ? "of those kept are " : ""}in this window. ` : "";
  const less = ofAll() ? `This page keeps ${ofAll()}: preempted, refused and slowest ones, those in windows of detail, and an even sample. ` : "";
  byId("requests-note").textContent = `One line per request, the earliest on top; thick ones hold many blocks. ${less}${inside}`;
}

function tellOmitted() {
  const list = byId("omitted");
  list.replaceChildren();
  for (const index of state.shown) {
    const { facts: about } = columns[index], { rows, map } = about, said = [];
    said.push(rows.shown < rows.total ? `${rows.shown.toLocaleString("en-US")} of ${rows.total.toLocaleString("en-US")} steps are drawn, each as recorded (peaks and troughs, and all of a few windows); tokens per second count every step` : `all ${rows.total.toLocaleString("en-US")} steps are drawn`);
    if (map) said.push(`${map.shown.toLocaleString("en-US")} of ${map.recorded.toLocaleString("en-US")} snapshots of the block map${map.stride > 1 ? `, one block in ${map.stride}` : ", every block"}`);
    const ticks = about.events.counts.preempt + about.events.counts.swap_out + about.events.counts.refuse;
    if (about.events.kept < ticks) said.push(`${number(about.events.kept)} of ${number(ticks)} memory events are marked`);
    if (!about.events.exact) said.push("when a request lost its memory is known to the nearest snapshot");
    list.append(el("li", {}, `${about.label}: ${said.join("; ")}.`));
  }
}

function drawChips() {
  const box = byId("chips");
  box.replaceChildren();
  facts.columns.forEach((column, index) => {
    const on = state.shown.includes(index);
    box.append(el("button", {
      type: "button", ariaPressed: String(on), title: column.label,
      onclick: () => {
        if (on && state.shown.length === 1) return;
        state.shown = on ? state.shown.filter((other) => other !== index) : [...state.shown, index].slice(-4).sort((one, two) => one - two);
        drawChips();
        remember();
        drawColumns();
      },
    }, column.label));
  });
}

function options(id, list, name, changed) {
  const box = byId(id);
  for (const [value, text] of list) box.append(el("option", { value }, text));
  box.value = state[name];
  box.addEventListener("change", () => { state[name] = box.value; changed(); remember(); });
}

async function redrawAll() {
  await drawColumns();
  await drawBars();
  document.documentElement.dataset.complete = "yes";
}

recall();
drawChips();
options("colour", COLOURS, "colour", () => { plots.forEach((plot) => plot.refresh && plot.refresh()); mapNote(); });
options("order", ORDERS, "order", () => plots.forEach((plot) => plot instanceof RequestsPlot && plot.repaint()));
byId("reset").addEventListener("click", () => zoomTo(0, state.until));
byId("closer").addEventListener("click", () => zoomBy(0.5));
byId("farther").addEventListener("click", () => zoomBy(2));
byId("previous").addEventListener("click", () => stepEvent(-1));
byId("next").addEventListener("click", () => stepEvent(1));
byId("diverge").addEventListener("click", firstDivergence);
byId("theme").addEventListener("click", () => {
  theme.turn();
  state.themed = true;
  remember();
});
document.addEventListener("keydown", keys);
let width = window.innerWidth, resizing = 0;
window.addEventListener("resize", () => {
  if (window.innerWidth === width) return; // a phone's address bar changes the height only
  width = window.innerWidth;
  clearTimeout(resizing);
  resizing = setTimeout(redrawAll, 150);
});

// the words and the table can be read while plotly is being parsed
requestAnimationFrame(() => setTimeout(() => {
  const source = byId("plotly");
  document.head.append(el("script", { textContent: source.textContent }));
  source.remove();
  addEventListener("theme", redrawAll);
  redrawAll();
}, 0));
