// Charts of many runs: one colour, dash and mark an allocator, the same on every chart of the page.
const OWN = { paged: "--live", ideal: "--cached" }; // as on the page of a run
const OTHERS = ["--external", "--rounding", "--reserved", "--internal", "--muted", "--ink"];
const COLOURS = coloured(facts.kinds || []);
function coloured(kinds) {
  const left = [...OTHERS, ...Object.entries(OWN).filter(([kind]) => !kinds.includes(kind)).map(([, name]) => name)];
  let others = 0;
  return kinds.map((kind, at) => (kind in OWN && kinds.indexOf(kind) === at ? OWN[kind] : left[others++ % left.length]));
}
const DASHES = ["solid", "dash", "dashdot", "dot"]; // ever sparser, so that one drawn over another lets it show
const MARKS = { circle: "●", square: "■", diamond: "◆", "triangle-up": "▲", x: "✖", hexagon: "⬢" };
const look = (at) => ({ colour: css(COLOURS[at]), dash: DASHES[at % DASHES.length], mark: Object.keys(MARKS)[at % Object.keys(MARKS).length] });
const DASH_ARRAYS = { solid: "", dash: "7 4", dot: "2 3", dashdot: "7 3 2 3" };
const lastWord = (key) => key.replace(/\.name$/, "").split(".").pop(); // device.name is a device
const named = (key) => (facts.keys.filter((other) => lastWord(other.key) === lastWord(key)).length > 1 ? key : lastWord(key));

// units of keys whose names do not end in theirs
const COUNTED = { rate: "arrivals/s", block_size: "token slots", max_num_seqs: "sequences", max_num_batched_tokens: "tokens", max_model_len: "tokens", count: "requests", page_kib: "KiB" };
const titled = (key) => (COUNTED[lastWord(key)] ? `${named(key)} (${COUNTED[lastWord(key)]})` : named(key));


// labels of at most so many letters, without what all of them begin with where one is too long
function abridged(labels, letters) {
  let same = 0;
  while (labels.length > 1 && labels.every((label) => same < label.length && label[same] === labels[0][same])) same += 1;
  const short_ = (label) => (same > 3 && longest(labels) > letters ? `…${label.slice(same)}` : label);
  return labels.map(short_).map((label) => (label.length <= letters ? label : `${label.slice(0, letters - 1)}…`));
}

// words along an axis: upright where they fit side by side, else aslant, with room below for the longest
const ASLANT = 45, SLOPE = Math.SQRT1_2, MOST_LETTERS = 24;
function along(labels, left, width) {
  const room = width / labels.length;
  if (LETTER * longest(labels) <= room) return { words: labels, angle: 0, below: 0 };
  const words = abridged(labels, Math.max(6, Math.min(MOST_LETTERS, Math.floor((left + room / 2) / (SLOPE * LETTER)))));
  return { words, angle: -ASLANT, below: Math.round(SLOPE * LETTER * longest(words)) };
}

function entry(label, colour, dash, mark) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  svg.setAttribute("aria-hidden", "true");
  for (const [name, value] of Object.entries({ x1: 1, x2: 25, y1: 6, y2: 6, stroke: colour, "stroke-width": 3, "stroke-dasharray": DASH_ARRAYS[dash] })) line.setAttribute(name, value);
  const glyph = document.createElementNS("http://www.w3.org/2000/svg", "text");
  for (const [name, value] of Object.entries({ x: 13, y: 6, fill: colour, "font-size": 11, "text-anchor": "middle", "dominant-baseline": "central" })) glyph.setAttribute(name, value);
  glyph.textContent = mark;
  svg.append(line, glyph);
  return el("li", {}, svg, label);
}

function legend(box, labels) {
  box.replaceChildren(...labels.map((label, at) => { const { colour, dash, mark } = look(at); return entry(label, colour, dash, MARKS[mark]); }));
}

const base = () => ({ color: css("--muted"), gridcolor: css("--line"), linecolor: css("--line"), zeroline: false, tickfont: { size: 11 }, tickformat: TICKS, fixedrange: true, automargin: false });
const BARE = { displayModeBar: false, responsive: false, showTips: false, scrollZoom: false };

const BESIDE = 30; // pixels for the title beside the numbers of an axis, which are as long as they must be

// an axis over words has them as `labels`
function chart(div, traces, { labels: across, ...x }, { labels: down, ...y }, more = {}) {
  const rows = down && abridged(down, narrow() ? 12 : 22), left = more.left || (rows ? Math.max(58, 34 + LETTER * longest(rows)) : 58);
  const { words, angle, below } = across ? along(across, left, div.clientWidth - left - 14) : { below: 0 };
  const ticks = (labels) => (labels ? { tickmode: "array", tickvals: labels.map((_, at) => at), ticktext: labels.map(plain) } : {});
  const layout = {
    height: (more.height || (narrow() ? 300 : 380)) + below, width: div.clientWidth, margin: { l: left, r: 14, t: 12, b: 46 + below }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    showlegend: false, dragmode: false, hovermode: more.hover || "closest", font: { family: "inherit", color: css("--muted"), size: 11 },
    hoverlabel: { bgcolor: css("--ink"), bordercolor: css("--ink"), font: { color: css("--bg"), size: 12, family: "inherit" } },
    xaxis: { ...base(), ...x, ...ticks(words), ...(words ? { tickangle: angle } : {}), title: { text: plain(x.title || ""), font: { size: 12 }, standoff: 8 } },
    yaxis: { ...base(), ...y, ...ticks(rows), title: { text: plain(y.title || ""), font: { size: 12 }, standoff: 6 } },
    shapes: more.shapes || [], annotations: more.annotations || [],
  };
  div.style.height = `${layout.height}px`;
  return Plotly.react(div, traces, layout, BARE).then(() => {
    const widest = Math.max(0, ...[...div.querySelectorAll(".ytick text")].map((tick) => tick.getBoundingClientRect().width));
    return widest + BESIDE > left && !more.left ? Plotly.relayout(div, { "margin.l": Math.ceil(widest + BESIDE) }) : div;
  });
}

const numeric = (values) => values.every((value) => typeof value === "number");
const wide = (values, factor) => { const known = values.filter((value) => value !== null); return known.length > 1 && Math.min(...known) > 0 && Math.max(...known) / Math.min(...known) >= factor; };
const said = (value) => (typeof value === "string" ? value : value === null ? "-" : typeof value === "number" ? value.toLocaleString("en-US", { maximumSignificantDigits: 12 }) : JSON.stringify(value));

// an axis over the values of a varied key: numbers keep their distances, words stand in a row, in no order
function keyAxis({ key, values }) {
  if (!numeric(values)) return { title: titled(key), labels: values.map(said), range: [-0.5, values.length - 0.5] };
  const sparse = values.length <= 8;
  return { title: titled(key), type: wide(values, 16) ? "log" : "linear", ...(sparse ? { tickmode: "array", tickvals: values, ticktext: values.map(said) } : {}) };
}
const unit = (figure) => (figure.unit ? `${figure.title} (${figure.unit})` : figure.title);

// points over the values of a varied key: joined where these are numbers, side by side where they are words
function overKey(key, given, label, at, of, figure) {
  const numbers = numeric(key.values), apart = numbers ? 0 : (at - (of - 1) / 2) * Math.min(0.12, 0.6 / of);
  const trace = line(given.map(({ place, ...rest }) => ({ x: numbers ? key.values[place] : place + apart, ...rest })), label, at, figure);
  return numbers ? trace : { ...trace, mode: "markers", marker: { ...trace.marker, size: 10 } };
}

function line(points, label, at, figure, more = {}) {
  const { colour, dash, mark } = look(at), repeated = points.some((point) => point.y[1] !== null);
  return {
    type: "scatter", mode: "lines+markers", name: plain(label), x: points.map((point) => point.x), y: points.map((point) => point.y[0]),
    line: { color: colour, dash, width: 2 }, marker: { color: colour, symbol: mark, size: 8 },
    error_y: repeated ? { type: "data", symmetric: false, array: points.map((p) => (p.y[2] === null ? 0 : p.y[2] - p.y[0])), arrayminus: points.map((p) => (p.y[1] === null ? 0 : p.y[0] - p.y[1])), color: colour, thickness: 1, width: 3 } : undefined,
    text: points.map((point) => point.text), hovertemplate: "%{text}<extra></extra>", ...more,
  };
}
const scaled = (values, scale) => values.map((value) => (value === null ? null : value * scale));
const plusMinus = ([mean, low, high]) => (mean === null ? "-" : `${short(mean)}${low === null ? "" : ` (${short(low)} to ${short(high)})`}`);

function choose(id, list, value, changed) {
  const box = byId(id);
  box.replaceChildren(...list.map(([name, text]) => el("option", { value: name }, text)));
  box.value = value;
  box.onchange = () => changed(box.value);
}

function themed(redraw) {
  byId("theme").addEventListener("click", theme.turn);
  addEventListener("theme", redraw);
  document.addEventListener("keydown", (event) => { if (event.key === "t" && !event.ctrlKey && !event.metaKey && !event.altKey && event.target.tagName !== "SELECT") byId("theme").click(); });
  let width = window.innerWidth, resizing = 0;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    clearTimeout(resizing);
    resizing = setTimeout(redraw, 150);
  });
}

// the words and the table can be read while plotly is being parsed
function begin(redraw) {
  requestAnimationFrame(() => setTimeout(async () => {
    const source = byId("plotly");
    document.head.append(el("script", { textContent: source.textContent }));
    source.remove();
    themed(redraw);
    await redraw();
    document.documentElement.dataset.complete = "yes";
  }, 0));
}
