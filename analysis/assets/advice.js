// Advice: each change as a difference with its interval, left or right of nothing.
function drawEffects(id, name, scale, sign, unit) {
  const rows = facts.changes.filter(({ effect }) => effect[name].mean !== null && effect.tells !== "none");
  if (!rows.length) { byId(id).replaceChildren(el("p", { className: "nothing" }, "Nothing that was tried makes a difference to any request.")); return null; }
  const colour = ({ mean, low, high }) => (low === null || (low <= 0 && high >= 0) ? css("--muted") : mean * sign > 0 ? css("--live") : css("--internal"));
  const of = rows.map(({ effect }) => effect[name]), names = rows.map(({ change, label }) => plain(label || change.replace(/ \S+ -> /g, " ")));
  const trace = { type: "scatter", mode: "markers", x: of.map(({ mean }) => scale * mean), y: rows.map((_, at) => at), marker: { size: 9, color: of.map(colour) },
    text: rows.map(({ change, effect }) => `${plain(change.replace(/ -> /g, " → "))}<br>${plusMinus(scaled([effect[name].mean, effect[name].low, effect[name].high], scale))}`), hovertemplate: "%{text}<extra></extra>" };
  const bars = rows.flatMap(({ effect }, at) => (effect[name].low === null ? [] : [{ type: "line", x0: scale * effect[name].low, x1: scale * effect[name].high, y0: at, y1: at, line: { color: colour(effect[name]), width: 2 } }]));
  const zero = { type: "line", yref: "paper", x0: 0, x1: 0, y0: 0, y1: 1, line: { color: css("--muted"), width: 1 } };
  const ends = of.flatMap(({ mean, low, high }) => [mean, low, high].filter((value) => value !== null).map((value) => scale * value)).concat(0);
  const [least, most] = [Math.min(...ends), Math.max(...ends)], room = 0.06 * (most - least || 1);
  const left = narrow() ? 150 : 235, letters = Math.floor(left / 6.6), cut = (text) => {
    const value = text.slice(text.lastIndexOf(" ")); // what tells changes of one setting apart
    return text.length > letters && value.length < letters ? `${text.slice(0, letters - 1 - value.length)}…${value}` : text;
  };
  return chart(byId(id), [trace], { title: `difference, ${unit}`, range: [least - room, most + room] }, { tickmode: "array", tickvals: rows.map((_, at) => at), ticktext: names.map(cut), range: [rows.length - 0.4, -0.6], showgrid: false },
    { shapes: [zero, ...bars], height: 72 + 24 * rows.length, left });
}

async function redraw() {
  if (byId("good")) await drawEffects("good", "good", 100, 1, "percentage points");
  await drawEffects("latency", "latency", 1e3, -1, "ms");
}

begin(redraw);
