// What holds the views together: one range, one cursor, one selected request, the address, the keys.
let stepped = null; // the event last stepped to, as several may fall on one instant
let plots = [], said = byId("said"), tip = byId("tip"), zoomPending = false;

function zoomTo(from, to) {
  const least = 1e-4;
  if (to < from) [from, to] = [to, from];
  from = Math.max(0, Math.min(from, state.until - least));
  to = Math.min(state.until, Math.max(to, from + least));
  if (from === state.range[0] && to === state.range[1]) return Promise.resolve();
  state.range = [from, to];
  if (zoomPending) return zoomPending;
  zoomPending = new Promise((done) => requestAnimationFrame(async () => {
    zoomPending = false;
    const began = performance.now();
    await Promise.all(plots.map((plot) => plot.setRange()));
    countRequests();
    remember();
    document.documentElement.dataset.zoom = String(Math.round(performance.now() - began)); // milliseconds, for tests
    done();
  }));
  return zoomPending;
}

function pointAt(time, words) {
  state.cursor = Math.max(0, Math.min(state.until, time));
  for (const plot of plots) plot.moveCursor();
  readout();
  if (words) said.textContent = words;
  remember();
}

function showAt(time) {
  const span = state.range[1] - state.range[0];
  if (time < state.range[0] || time > state.range[1]) zoomTo(time - span / 2, time + span / 2);
}

function select(request) {
  state.request = request;
  for (const plot of plots) { if (plot.refresh) plot.refresh(); else plot.repaint(); }
  details();
  remember();
}

if (coarse) said.textContent = "Tap a plot to read there, + to zoom in on that; tap a block or a request to follow it everywhere.";
const hint = said.textContent;
function clear() {
  state.cursor = stepped = null;
  said.textContent = hint;
  for (const plot of plots) plot.moveCursor();
  readout();
  select(null);
}

let remembering = 0;
function remember() {
  clearTimeout(remembering);
  remembering = setTimeout(() => {
    const parts = [];
    if (state.range[0] !== 0 || state.range[1] !== state.until) parts.push(`x=${state.range.map((value) => +value.toFixed(6)).join(",")}`);
    if (state.cursor !== null) parts.push(`t=${+state.cursor.toFixed(6)}`);
    if (state.request !== null) parts.push(`r=${state.request}`);
    parts.push(`a=${state.shown.join(",")}`);
    if (state.colour !== COLOURS[0][0]) parts.push(`c=${state.colour}`);
    if (state.order !== "arrival") parts.push(`o=${state.order}`);
    if (state.themed) parts.push(`theme=${theme.wish}`);
    history.replaceState(null, "", `#${parts.join("&")}`);
  }, 120);
}

function recall() {
  const given = new Map(location.hash.slice(1).split("&").filter(Boolean).map((part) => part.split("=")));
  const numbers = (key) => (given.get(key) || "").split(",").filter(Boolean).map(Number).filter(Number.isFinite);
  const shown = numbers("a").filter((index) => index in facts.columns);
  state.shown = shown.length ? [...new Set(shown)].slice(0, 4) : [...new Set(facts.pair)];
  const range = numbers("x");
  if (range.length === 2 && range[1] > range[0]) state.range = [Math.max(0, range[0]), range[1]];
  if (numbers("t").length) state.cursor = numbers("t")[0];
  if (numbers("r").length) state.request = numbers("r")[0];
  if (COLOURS.some(([name]) => name === given.get("c"))) state.colour = given.get("c");
  if (ORDERS.some(([name]) => name === given.get("o"))) state.order = given.get("o");
  state.themed = given.has("theme");
}

function momentWords(column) {
  if (state.cursor > column.until) return "over";
  const { steps, facts: about } = column, row = column.rowAt(state.cursor);
  return `${((100 * steps.live[row]) / about.capacity).toFixed(1)} % live, ${number(steps.running[row])} running, ${number(steps.waiting[row])} waiting`;
}

// the cursor by a hundredth of the window, and in words what stands there: reading without a mouse
function nudge(direction) {
  const [from, to] = state.range, inside = state.cursor !== null && state.cursor >= from && state.cursor <= to;
  pointAt(inside ? Math.max(from, Math.min(to, state.cursor + (direction * (to - from)) / 100)) : direction > 0 ? from : to);
  said.textContent = `${seconds(state.cursor)}: ${state.shown.map((index) => `${columns[index].facts.label} ${momentWords(columns[index])}`).join("; ")}`;
}

// the ledger at the cursor in one line a column, always in sight
function nowStrip() {
  const box = byId("now");
  box.replaceChildren();
  for (const index of state.shown) {
    const column = columns[index], { steps, facts: about } = column;
    if (state.cursor === null) continue;
    const over = state.cursor > column.until, row = over ? 0 : column.rowAt(state.cursor);
    const bar = el("div", { className: "stack" });
    if (!over) for (const name of SHARES) if (steps[name][row]) bar.append(el("span", { className: `s-${name}`, style: `width:${(100 * steps[name][row]) / about.capacity}%` }));
    box.append(el("div", {}, el("b", {}, about.label), bar, el("span", {}, over ? "over" : `${seconds(state.cursor)}: ${momentWords(column)}`)));
  }
}

function readout() {
  nowStrip();
  const box = byId("readout");
  box.replaceChildren();
  for (const index of state.shown) {
    const column = columns[index], { steps, facts: about } = column;
    const card = el("div", { className: "card" });
    const cursor = state.cursor === null ? null : column.rowAt(state.cursor);
    card.append(el("h4", {}, about.label));
    if (cursor === null) card.append(el("p", {}, "Move over a plot: the ledger at that instant appears here."));
    else if (state.cursor > column.until) card.append(el("p", {}, `over since ${seconds(column.until)}`));
    else {
      const why = BLOCKED[steps.blocked[cursor]];
      card.append(el("p", {}, `At ${seconds(state.cursor)}, step ${steps.step[cursor]} (${seconds(steps.start[cursor])}, ${short(1e3 * steps.duration[cursor])} ms): ${number(steps.running[cursor])} running, ${number(steps.waiting[cursor])} waiting${why ? `, next waits for ${AWAITED[why]}` : ""}`));
    }
    const head = el("tr", {}, ...["", "slots now", "now", "mean", "peak", "byte-seconds"].map((text) => el("th", { scope: "col" }, text)));
    const body = el("tbody", {});
    const live = cursor !== null && state.cursor <= column.until;
    const percent = (value) => `${((100 * value) / about.capacity).toFixed(1)} %`;
    for (const name of SHARES) {
      const now = live ? steps[name][cursor] : null;
      body.append(el("tr", {}, el("th", { scope: "row" }, el("span", { className: `swatch s-${name}` }), name),
        ...[now === null ? "-" : now.toLocaleString("en-US"), now === null ? "-" : percent(now), percent(about.ledger.mean[name]), percent(about.ledger.peak[name]), `${bytes(about.ledger.byte_seconds[name])}·s`].map((text) => el("td", {}, text))));
    }
    const sum = live ? SHARES.reduce((total, name) => total + steps[name][cursor], 0) : null;
    const foot = el("tfoot", {}, el("tr", {}, ...["pool", sum === null ? "-" : sum.toLocaleString("en-US"), sum === null ? "-" : percent(sum), "100.0 %", "", ""].map((text) => el("td", {}, text))));
    card.append(el("table", {}, el("thead", {}, head), body, foot));
    const outside = [];
    if (about.ledger.peak.shared_savings) outside.push(`sharing saves ${live ? `${steps.shared_savings[cursor].toLocaleString("en-US")} slots now, ` : ""}${short(about.ledger.mean.shared_savings)} ${live ? "" : "slots "}on average`);
    if (about.ledger.peak.swapped) outside.push(`on the host ${live ? `${steps.swapped[cursor].toLocaleString("en-US")} slots now, ` : ""}${short(about.ledger.mean.swapped)} ${live ? "" : "slots "}on average`);
    if (outside.length) card.append(el("p", {}, `Outside the sum: ${outside.join("; ")}.`));
    box.append(card);
  }
}

function details() {
  const box = byId("detail");
  box.replaceChildren();
  if (state.request === null) return;
  const parts = el("div", {});
  for (const index of state.shown) {
    const column = columns[index], at = column.place.get(state.request), list = el("ul", {});
    if (at === undefined) list.append(el("li", {}, `not among the ${number(facts.requests.shown)} requests this page keeps; requests.parquet has all`));
    else list.append(el("li", {}, requestWords(column, at).join(" · ")));
    const map = plots.find((plot) => plot instanceof BlockMapPlot && plot.column === column && plot.picture);
    if (map) {
      const when = present(column, at) ? state.cursor : lastSeen(column, at), table = map.tableOf(state.request, when);
      const runs = consecutive(table.blocks, column.map.stride), listed = runs.slice(0, 120).join(" ") + (runs.length > 120 ? " …" : "");
      const stride = column.map.stride > 1 ? `, one block in ${column.map.stride} drawn` : "";
      const pieces = runs.length > 1 ? `, in ${number(runs.length)} places` : runs.length ? ", in one piece" : "";
      list.append(el("li", {}, `block table ${table.blocks.length ? "" : "as last recorded "}at ${seconds(table.instant)}${sharesBlocks(column, at) ? NOT_ITS_OWN : ""}${stride}${pieces}: ${table.blocks.length ? "" : "no blocks"}`, el("code", {}, ` ${listed}`)));
    }
    for (const line of fate(column)) list.append(line);
    parts.append(el("section", {}, el("h4", {}, column.facts.label), list));
  }
  box.append(el("div", { className: "card" }, el("h4", {}, `Request ${state.request} `, el("button", { type: "button", onclick: () => select(null) }, "clear")), parts));
}

// whether the cursor is at a time between the arrival of a request and its end, or nothing is known of it
function present(column, at) {
  if (state.cursor === null || at === undefined) return state.cursor !== null;
  const { arrival, finish } = column.requests;
  return state.cursor >= arrival[at] && !(state.cursor > finish[at]);
}

// just before a request finishes, when it holds the most
function lastSeen(column, at) {
  if (at === undefined) return column.until;
  const finish = column.requests.finish[at];
  return Number.isFinite(finish) ? finish * (1 - 1e-9) : column.until;
}

// ascending blocks as runs of neighbours: 7, or 12–40
function consecutive(blocks, stride) {
  const runs = [];
  for (const block of blocks) {
    const last = runs[runs.length - 1];
    if (last && block === last[1] + stride) last[1] = block;
    else runs.push([block, block]);
  }
  return runs.map(([from, to]) => (from === to ? String(from) : `${from}–${to}`));
}

// memory events of the selected request, both those it suffered and those it caused, each a way to go there
function fate(column) {
  const mine = column.ticks.filter((tick) => tick.request === state.request || (tick.cause === state.request && tick.kind !== "evict"));
  const lines = mine.slice(0, 12).map((tick) => {
    const line = el("li", { className: "fate" }, el("button", { type: "button", onclick: () => { showAt(tick.time); pointAt(tick.time, tick.text); } }, seconds(tick.time)), ` ${tick.text} `);
    for (const other of [tick.cause, tick.request]) if (other !== null && other !== state.request) line.append(el("button", { type: "button", onclick: () => select(other) }, `follow request ${other}`));
    return line;
  });
  if (mine.length > lines.length) lines.push(el("li", {}, `and ${number(mine.length - lines.length)} more memory events`));
  return lines;
}

function stepEvent(direction) {
  const all = state.shown.flatMap((index) => columns[index].ticks.map((tick) => ({ ...tick, label: columns[index].facts.label }))).sort((one, other) => one.time - other.time);
  const from = state.cursor === null ? (direction > 0 ? state.range[0] - 1e-9 : state.range[1]) : state.cursor;
  const here = stepped && stepped.time === state.cursor ? all.findIndex((tick) => tick.label === stepped.label && tick.time === stepped.time && tick.text === stepped.text) : -1;
  const ahead = here >= 0 ? all[here + direction] : direction > 0 ? all.find((tick) => tick.time > from + 1e-9) : all.filter((tick) => tick.time < from - 1e-9).pop();
  if (!ahead) { said.textContent = all.length ? `No ${direction > 0 ? "later" : "earlier"} memory event.` : "No preemption, refusal or eviction in these runs."; return; }
  stepped = ahead;
  showAt(ahead.time);
  pointAt(ahead.time, `${seconds(ahead.time)}, ${ahead.label}: ${ahead.text}`);
  if (ahead.request !== null) select(ahead.request);
}

function firstDivergence() {
  const [one, two] = [...state.shown].sort((first, second) => first - second), found = facts.divergences[`${one},${two}`];
  if (two !== undefined && !alike(columns[one], columns[two])) { said.textContent = "These two did not serve the same requests."; return; }
  if (!found) { said.textContent = two === undefined ? "Show two allocators to compare them." : "These two treat every request alike."; return; }
  const half = Math.min(state.until / 2, Math.max(state.until / 60, 0.5));
  zoomTo(found.time_s - half, found.time_s + half);
  pointAt(found.time_s, `Until ${seconds(found.time_s)} both treat every request alike. Request ${found.request_id}: ${found.why}.`);
  select(found.request_id);
}

function zoomBy(factor) {
  const centre = state.cursor !== null && state.cursor >= state.range[0] && state.cursor <= state.range[1] ? state.cursor : (state.range[0] + state.range[1]) / 2;
  return zoomTo(centre - (centre - state.range[0]) * factor, centre + (state.range[1] - centre) * factor);
}

function cycle(list, name, id) {
  const at = list.findIndex(([key]) => key === state[name]);
  state[name] = list[(at + 1) % list.length][0];
  byId(id).value = state[name];
  byId(id).dispatchEvent(new Event("change"));
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  const span = state.range[1] - state.range[0];
  const acts = {
    ArrowLeft: () => (event.shiftKey ? zoomTo(Math.max(0, state.range[0] - span / 4), Math.max(span, state.range[1] - span / 4)) : stepEvent(-1)),
    ArrowRight: () => (event.shiftKey ? zoomTo(Math.min(state.until - span, state.range[0] + span / 4), state.range[1] + span / 4) : stepEvent(1)),
    "+": () => zoomBy(0.5), "=": () => zoomBy(0.5), "-": () => zoomBy(2), 0: () => zoomTo(0, state.until),
    ",": () => nudge(-1), ".": () => nudge(1), d: firstDivergence, c: () => cycle(COLOURS, "colour", "colour"), s: () => cycle(ORDERS, "order", "order"), t: () => byId("theme").click(), Escape: clear,
  };
  const act = acts[event.key] || acts[event.key.toLowerCase()];
  if (act) { event.preventDefault(); act(); }
}

function follow(plot) {
  let down = null;
  plot.box.addEventListener("pointermove", (event) => {
    const time = plot.timeAt(event.clientX), up = plot.heightAt(event.clientY);
    if (time < state.range[0] || time > state.range[1] || up < 0 || up > 1) { tip.hidden = true; return; }
    pointAt(time);
    const found = plot.under(time, up);
    tip.hidden = !found || event.buttons > 0;
    if (found) {
      tip.textContent = found.text;
      const box = tip.getBoundingClientRect();
      tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, window.innerWidth - box.width - 8))}px`;
      tip.style.top = `${event.clientY + 18 + box.height > window.innerHeight ? event.clientY - box.height - 12 : event.clientY + 18}px`;
    }
  });
  plot.box.addEventListener("pointerleave", () => { tip.hidden = true; });
  plot.box.addEventListener("pointerdown", (event) => { down = [event.clientX, event.clientY]; }, true);
  window.addEventListener("pointerup", (event) => {
    if (!down || Math.hypot(event.clientX - down[0], event.clientY - down[1]) > 4 || !plot.box.isConnected) { down = null; return; }
    down = null;
    const time = plot.timeAt(event.clientX), up = plot.heightAt(event.clientY);
    if (time < state.range[0] || time > state.range[1] || up < 0 || up > 1) return;
    pointAt(time);
    const found = plot.under(time, up);
    if (found && found.request !== null && found.request !== undefined) select(found.request === state.request ? null : found.request);
  }, true);
}
