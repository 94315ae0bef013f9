// A trace beside its fit: one chart a quantity.
const LOOKS = [["trace", "--live", "solid"], ["fitted", "--internal", "dot"]];

function drawPanel({ title, x, y, log, lines }, at) {
  const most = Math.max(0, ...LOOKS.flatMap(([name]) => lines[name][0]));
  const few = !log; // of a single minute there is no line, so each has its mark
  const traces = LOOKS.map(([name, colour, dash]) => ({
    type: "scatter", mode: few ? "lines+markers" : "lines", name, x: lines[name][0], y: lines[name][1], line: { color: css(colour), dash, width: 2 }, marker: { color: css(colour), size: 7 },
    hovertemplate: `${name}: %{x:,.4~r} · %{y:,.4~r}<extra></extra>`,
  }));
  const across = log ? { type: "log", dtick: 1 } : { tickmode: "linear", tick0: 0, dtick: Math.max(1, Math.ceil((most + 1) / 8)) };
  return chart(byId(`panel-${at}`), traces, { title: x, ...across }, { title: y, rangemode: "tozero" }, { height: narrow() ? 240 : 280 });
}

async function redraw() {
  byId("legend").replaceChildren(...LOOKS.map(([name, colour, dash]) => entry(name, css(colour), dash, "")));
  for (const [at, panel] of facts.panels.entries()) await drawPanel(panel, at);
}

begin(redraw);
