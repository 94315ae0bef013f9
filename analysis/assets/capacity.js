// A capacity: the figure against the rate (figure 12 of the PagedAttention paper), and what each allocator sustains.
const best = facts.answers.reduce((one, other) => ((other.capacity[0] || 0) > (one.capacity[0] || 0) ? other : one));
const wish = { figure: facts.figures[0].name, at: [...best.at] };
const ABOVE = 5; // times the limit that the axis shows

const chosen = (answer) => answer.at.every((value, key) => value === wish.at[key]);

function drawCurves() {
  const figure = facts.figures.find((one) => one.name === wish.figure);
  const limit = facts.slo[figure.name] === undefined ? null : facts.slo[figure.name] * figure.scale;
  const traces = [];
  let fastest = 0;
  for (const answer of facts.answers.filter(chosen)) {
    const curve = facts.curves.find((one) => one.point === answer.point && one.allocator === answer.allocator);
    const points = curve.points.filter((point) => point.figures[figure.name][0] !== null);
    const label = facts.allocators[answer.allocator], { colour, mark } = look(answer.allocator);
    const trace = line(points.map((point) => {
      const y = scaled(point.figures[figure.name], figure.scale);
      return { x: point.rate, y, text: [plain(label), `${short(point.rate)} ${facts.unit}`, `${plain(figure.title)}: ${plusMinus(y)} ${figure.unit}`, point.kept_up ? "" : "fell behind"].filter(Boolean).join("<br>") };
    }), label, answer.allocator, figure);
    trace.marker.symbol = points.map((point) => (point.kept_up ? mark : `${mark}-open`));
    trace.marker.size = 7;
    traces.push(trace);
    const near = points.filter((point) => limit === null || point.figures[figure.name][0] * figure.scale < ABOVE * limit);
    fastest = Math.max(fastest, ...near.map((point) => point.rate), (answer.capacity[0] || 0) * 1.1);
    const there = (answer.figures[figure.name] || [null])[0]; // what the runs at the sustained rate have shown
    if (answer.capacity[0] && there !== null) {
      traces.push({ type: "scatter", mode: "markers", x: [answer.capacity[0]], y: [there * figure.scale], marker: { symbol: "star", size: 15, color: colour, line: { color: css("--panel"), width: 1 } }, text: [`${plain(label)}<br>sustains ${plusMinus(answer.capacity)} ${facts.unit}<br>${plain(figure.title)} there: ${short(there * figure.scale)} ${figure.unit}`], hovertemplate: "%{text}<extra></extra>" });
    }
  }
  const highest = fastest > 0 ? ABOVE * limit : 1.1 * Math.max(...traces.flatMap((trace) => trace.y)); // no point near it: all
  fastest = fastest || Math.max(...traces.flatMap((trace) => trace.x));
  const falls = figure.unit === "%"; // with the rate, so that the room for words is on the right
  const shapes = limit === null ? [] : [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: limit, y1: limit, line: { color: css("--internal"), width: 1.5, dash: "dash" } }];
  const annotations = limit === null ? [] : [{ xref: "paper", x: falls ? 1 : 0, y: limit, xanchor: falls ? "right" : "left", yanchor: "bottom", text: `SLO ${Number(limit.toPrecision(3))} ${figure.unit}`, showarrow: false, font: { size: 11, color: css("--ink") } }];
  const log = wide(traces.flatMap((trace) => trace.y), 50);
  const y = falls ? { range: [-2, 105] } : limit !== null ? { range: [0, highest] } : log ? { type: "log", dtick: 1 } : { rangemode: "tozero" };
  return chart(byId("curves"), traces, { title: facts.unit, range: [0, fastest * 1.06] }, { title: unit(figure), ...y }, { shapes, annotations, height: narrow() ? 320 : 440 });
}

function drawCapacities() {
  if (!facts.keys.length) {
    const answers = facts.answers, repeated = answers.some((answer) => answer.capacity[1] !== null);
    const trace = { type: "bar", orientation: "h", y: answers.map((_, at) => at), x: answers.map((answer) => answer.capacity[0]), marker: { color: answers.map((answer) => look(answer.allocator).colour) }, width: 0.6,
      error_x: repeated ? { type: "data", symmetric: false, array: answers.map(({ capacity }) => (capacity[2] === null ? 0 : capacity[2] - capacity[0])), arrayminus: answers.map(({ capacity }) => (capacity[1] === null ? 0 : capacity[0] - capacity[1])), color: css("--ink"), thickness: 1.2, width: 4 } : undefined,
      text: answers.map((answer) => `${plain(facts.allocators[answer.allocator])}: ${answer.none ? "none" : plusMinus(answer.capacity)} ${facts.unit}`), textposition: "none", hovertemplate: "%{text}<extra></extra>" };
    const names = answers.map((answer) => facts.allocators[answer.allocator]);
    const most = Math.max(...answers.map(({ capacity }) => Math.min(capacity[2] === null ? capacity[0] : capacity[2], 3 * capacity[0])));
    return chart(byId("capacities"), [trace], { title: facts.unit, range: [0, most * 1.05 || 1] }, { labels: names, autorange: "reversed", showgrid: false }, { height: 70 + 34 * answers.length });
  }
  const key = facts.keys[0];
  const traces = facts.allocators.map((label, allocator) => {
    const mine = facts.answers.filter((answer) => answer.allocator === allocator && answer.at.every((value, at) => at === 0 || value === wish.at[at]));
    return overKey(key, mine.map((answer) => ({ place: answer.at[0], y: answer.capacity, text: `${plain(label)}<br>${plain(named(key.key))} ${plain(said(key.values[answer.at[0]]))}<br>${answer.none ? "none" : plusMinus(answer.capacity)} ${facts.unit}` })), label, allocator, facts.allocators.length);
  });
  return chart(byId("capacities"), traces, keyAxis(key), { title: facts.unit, rangemode: "tozero" });
}

function controls() {
  choose("figure", facts.figures.map((figure) => [figure.name, unit(figure)]), wish.figure, (value) => { wish.figure = value; redraw(); });
  byId("others").replaceChildren(...facts.keys.map(({ key, values }, at) => {
    const select = el("select", {}, ...values.map((value, place) => el("option", { value: String(place) }, said(value))));
    select.value = String(wish.at[at]);
    select.onchange = () => { wish.at[at] = Number(select.value); redraw(); };
    return el("label", {}, `curves at ${named(key)}`, select);
  }));
}

async function redraw() {
  controls();
  legend(byId("legend"), facts.allocators);
  await drawCurves();
  await drawCapacities();
}

begin(redraw);
