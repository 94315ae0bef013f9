// A sweep: curves over one key, heat maps over two, and the front of what is worth having.
const wish = { figure: facts.figures[0].name, x: 0, y: facts.keys.length > 1 ? 1 : 0, at: facts.keys.map(() => 0) };
const figureNamed = (name) => facts.figures.find((figure) => figure.name === name);
const valueOf = (cell, figure) => scaled(cell.figures[figure.name] || [null, null, null], figure.scale);
const settingsOf = (cell) => facts.keys.map(({ key, values }, at) => `${named(key)} ${said(values[cell.at[at]])}`).join(", ");
const tell = (cell, ...figures) => [plain(facts.allocators[cell.allocator]), plain(settingsOf(cell)), ...figures.map((figure) => `${plain(figure.title)}: ${plusMinus(valueOf(cell, figure))} ${figure.unit}`), cell.verdict].join("<br>");

// cells where every key but those given has the value chosen for it
const slice = (free) => facts.cells.filter((cell) => cell.at.every((value, key) => free.includes(key) || value === wish.at[key]));

// values of the keys that are not drawn at which the most is to be seen at first
function telling(x) {
  const figure = figureNamed(wish.figure), slices = new Map();
  for (const cell of facts.cells) {
    const at = cell.at.map((value, key) => (key === x ? 0 : value)), value = valueOf(cell, figure)[0];
    if (value === null) continue;
    const known = slices.get(String(at)) || { at, least: value, most: value };
    slices.set(String(at), { at, least: Math.min(known.least, value), most: Math.max(known.most, value) });
  }
  const apart = ({ least, most }) => (most > 0 ? (most - least) / most : 0);
  return [...slices.values()].reduce((best, one) => (apart(one) > apart(best) + 1e-9 ? one : best), { at: wish.at, least: 0, most: 0 }).at;
}

// what the SLO says of a figure; a part of a mix may have limits of its own, or be freed of one (null)
function limit(figure) {
  const words = figure.name.split("."), ofPart = words[0] === "part", name = ofPart ? words[2] : words[0];
  const own = ofPart ? facts.slo[words.slice(0, 3).join(".")] : undefined;
  const value = own === undefined ? facts.slo[name] : own;
  return value === undefined || value === null || !name.endsWith("_s") ? null : value * figure.scale;
}

function drawCurves() {
  const figure = figureNamed(wish.figure), key = facts.keys[wish.x], cells = slice([wish.x]);
  const x = keyAxis(key);
  const traces = facts.allocators.map((label, allocator) => {
    const mine = cells.filter((cell) => cell.allocator === allocator && valueOf(cell, figure)[0] !== null).sort((one, two) => one.at[wish.x] - two.at[wish.x]);
    return overKey(key, mine.map((cell) => ({ place: cell.at[wish.x], y: valueOf(cell, figure), text: tell(cell, figure) })), label, allocator, facts.allocators.length, figure);
  }).filter((trace) => trace.x.length);
  const values = traces.flatMap((trace) => trace.y), slo = limit(figure), log = figure.unit !== "%" && wide(values, 50);
  const shapes = slo === null ? [] : [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: slo, y1: slo, line: { color: css("--internal"), width: 1.5, dash: "dash" } }];
  const annotations = slo === null ? [] : [{ xref: "paper", x: 0, y: log ? Math.log10(slo) : slo, xanchor: "left", yanchor: "bottom", text: `SLO ${Number(slo.toPrecision(3))} ${figure.unit}`, showarrow: false, font: { size: 11, color: css("--internal") } }];
  byId("no-curves").hidden = traces.length > 0;
  return chart(byId("curves"), traces, x, { title: unit(figure), type: log ? "log" : "linear", ...(log ? { dtick: 1 } : { rangemode: "tozero" }) }, { shapes, annotations });
}

function drawMaps() {
  const figure = figureNamed(wish.figure), one = facts.keys.length < 2, box = byId("maps");
  for (const div of box.querySelectorAll(".js-plotly-plot")) Plotly.purge(div);
  box.replaceChildren();
  const across = facts.keys[wish.x], free = one ? [wish.x] : [wish.x, wish.y], cells = slice(free);
  const all = cells.map((cell) => valueOf(cell, figure)[0]).filter((value) => value !== null);
  if (!all.length) { box.append(el("p", { className: "nothing" }, "No cell has this figure.")); return Promise.resolve(); }
  const low = Math.min(...all), high = Math.max(...all);
  const panels = one ? [["every allocator", cells, facts.allocators, (cell) => cell.allocator]]
    : facts.allocators.map((label, at) => [label, cells.filter((cell) => cell.allocator === at), facts.keys[wish.y].values.map(said), (cell) => cell.at[wish.y]]);
  const shade = (value) => (wide(all, 50) ? Math.log10(value) : value), span = shade(high) - shade(low);
  const drawn = panels.map(([title, mine, rows, row]) => {
    const div = el("div", {});
    box.append(el("figure", { className: "panel" }, el("figcaption", {}, title), div));
    return [div, mine, rows, row];
  });
  return Promise.all(drawn.map(([div, mine, rows, row]) => {
    const z = rows.map(() => across.values.map(() => null)), text = rows.map(() => across.values.map(() => "")), annotations = [];
    const size = across.values.length > 9 ? 9 : 11.5;
    for (const cell of mine) {
      const value = valueOf(cell, figure)[0], x = cell.at[wish.x], y = row(cell);
      if (value === null) continue;
      z[y][x] = shade(value);
      text[y][x] = tell(cell, figure);
      const dark = (span ? (shade(value) - shade(low)) / span : 0) > 0.55;
      annotations.push({ x, y, text: short(value), showarrow: false, font: { size, color: dark ? "#ffffff" : css("--ink") } });
    }
    const trace = { type: "heatmap", x: across.values.map((_, at) => at), y: rows.map((_, at) => at), z, text, hovertemplate: "%{text}<extra></extra>", hoverongaps: false, xgap: 2, ygap: 2,
      zmin: shade(low), zmax: span ? shade(high) : shade(low) + 1, colorscale: [[0, css("--soft")], [1, css("--live")]], showscale: false };
    return chart(div, [trace], { labels: across.values.map(said), title: titled(across.key), showgrid: false }, { labels: rows, title: one ? "" : named(facts.keys[wish.y].key), autorange: "reversed", showgrid: false },
      { annotations, height: Math.max(150, 78 + 34 * rows.length) });
  }));
}

function drawFront() {
  const [thing, latency, held] = ["throughput_rps", "normalized_latency_s", "held_gib.peak"].map(figureNamed);
  return Promise.all([["front-latency", latency], ["front-memory", held]].map(([id, other]) => {
    const known = facts.cells.filter((cell) => valueOf(cell, thing)[0] !== null && valueOf(cell, other)[0] !== null);
    const traces = facts.allocators.map((label, allocator) => {
      const mine = known.filter((cell) => cell.allocator === allocator), { colour, mark } = look(allocator);
      return { type: "scatter", mode: "markers", name: plain(label), x: mine.map((cell) => valueOf(cell, thing)[0]), y: mine.map((cell) => valueOf(cell, other)[0]),
        marker: { color: colour, symbol: mine.map((cell) => (cell.front ? mark : `${mark}-open`)), size: mine.map((cell) => (cell.front ? 11 : 7)), opacity: mine.map((cell) => (cell.front ? 1 : 0.6)), line: { width: 1.2, color: colour } },
        text: mine.map((cell) => tell(cell, thing, latency, held)), hovertemplate: "%{text}<extra></extra>" };
    }).filter((trace) => trace.x.length);
    // the edge of this plane alone: nothing but the bound has more throughput and less of the other
    const real = known.filter((cell) => !cell.bound), edge = real.filter((cell) => !real.some((rival) => rival !== cell && valueOf(rival, thing)[0] >= valueOf(cell, thing)[0] && valueOf(rival, other)[0] <= valueOf(cell, other)[0]
      && (valueOf(rival, thing)[0] > valueOf(cell, thing)[0] || valueOf(rival, other)[0] < valueOf(cell, other)[0]))).sort((one, two) => valueOf(one, thing)[0] - valueOf(two, thing)[0]);
    traces.unshift({ type: "scatter", mode: "lines", x: edge.map((cell) => valueOf(cell, thing)[0]), y: edge.map((cell) => valueOf(cell, other)[0]), line: { color: css("--muted"), width: 1, dash: "dot" }, hoverinfo: "skip" });
    const log = wide(known.map((cell) => valueOf(cell, other)[0]), 50);
    return chart(byId(id), traces, { title: unit(thing), rangemode: "tozero" }, { title: unit(other), type: log ? "log" : "linear", ...(log ? { dtick: 1 } : { rangemode: "tozero" }) });
  }));
}

function controls() {
  choose("figure", facts.figures.map((figure) => [figure.name, unit(figure)]), wish.figure, (value) => { wish.figure = value; redraw(); });
  const keys = facts.keys.map(({ key }, at) => [String(at), named(key)]);
  choose("x", keys, String(wish.x), (value) => {
    const before = wish.x;
    wish.x = Number(value);
    if (facts.keys.length > 1 && wish.y === wish.x) wish.y = before;
    redraw();
  });
  byId("x-box").hidden = facts.keys.length < 2;
  const box = byId("others");
  box.replaceChildren(...facts.keys.map(({ key, values }, at) => {
    if (at === wish.x) return null;
    const select = el("select", { id: `at-${at}` }, ...values.map((value, place) => el("option", { value: String(place) }, said(value))));
    select.value = String(wish.at[at]);
    select.onchange = () => { wish.at[at] = Number(select.value); redraw(); };
    return el("label", {}, `at ${named(key)}`, select);
  }).filter(Boolean));
}

async function redraw() {
  const before = document.activeElement.id;
  controls();
  if (before) byId(before)?.focus(); // what was chosen in has been made anew, and the next key is for it
  legend(byId("legend"), facts.allocators);
  if (facts.keys.length) { await drawCurves(); await drawMaps(); }
  await drawFront();
}

wish.at = telling(wish.x);
begin(redraw);
