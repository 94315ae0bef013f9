// View 5: figures of all allocators as bars with intervals, and the difference request by request.
let turnOfBars = 0;
async function drawBars() {
  const turn = ++turnOfBars; // one that is overtaken stops
  const box = byId("bars"), labels = facts.columns.map((column) => column.label);
  const unsure = facts.bars.some((bar) => bar.rows.some((row) => row.basis));
  const ideal = facts.columns.some((column) => column.kind === "ideal");
  box.replaceChildren();
  if (!facts.bars.length) { byId("bars-note").textContent = "No request was served, so there is no figure to compare."; return; }
  byId("bars-note").textContent = [
    unsure ? "Whiskers are 95 % intervals (over replications where there are several, else a block bootstrap over the requests)." : "",
    ideal ? "Numbers in brackets are per cent of ideal." : "",
    `Dark blue: paged${ideal ? "; green: ideal, the bound" : ""}.`,
    facts.bars.some((bar) => bar.rows.some((row) => row.published !== null)) ? "Diamonds are published figures." : "",
    facts.columns.some((column) => column.verdict === "OVERLOADED") ? "Pale bars belong to OVERLOADED runs: their latencies grow with the length of the run." : "",
  ].filter(Boolean).join(" ");
  for (const bar of facts.bars) {
    if (turn !== turnOfBars) return;
    const div = el("div", {});
    const values = bar.rows.map((row) => row.value), known = values.filter((value) => value > 0);
    const log = bar.name !== "kv_efficiency" && known.length > 1 && Math.max(...known) / Math.min(...known) > 60;
    box.append(el("figure", {}, el("figcaption", {}, bar.title, " ", el("small", {}, [bar.unit, log ? "log scale" : ""].filter(Boolean).join(", "))), div));
    const rate = ["batch_size", "throughput_rps"].includes(bar.name);
    const ends = bar.rows.flatMap((row) => [row.value, row.high, row.published]).filter((value) => value !== null && Number.isFinite(value));
    const most = Math.max(1e-9, ...ends), least = Math.min(...known, ...bar.rows.map((row) => row.low).filter((low) => low > 0));
    const height = 20 * labels.length + 34;
    const ys = labels.map((_, at) => at);
    const traces = [{
      type: "bar", orientation: "h", y: ys, x: values, hoverinfo: "skip", cliponaxis: false, textposition: "none",
      marker: { color: facts.columns.map((column) => css(column.kind === "ideal" ? "--cached" : column.kind === "paged" ? "--live" : "--reserved")), opacity: facts.columns.map((column) => (column.verdict === "OVERLOADED" && /_s(\.|$)/.test(bar.name) ? 0.45 : 1)) },
      error_x: { type: "data", symmetric: false, array: bar.rows.map((row) => (row.high === null ? 0 : row.high - row.value)), arrayminus: bar.rows.map((row) => (row.low === null ? 0 : row.value - row.low)), color: css("--ink"), thickness: 1.2, width: 3, visible: bar.rows.some((row) => row.basis) },
    }];
    if (bar.rows.some((row) => row.published !== null)) traces.push({ type: "scatter", mode: "markers", y: ys, x: bar.rows.map((row) => row.published), marker: { symbol: "diamond", size: 9, color: css("--mark"), line: { color: css("--panel"), width: 1 } }, hoverinfo: "skip" });
    const base = layout(height, {});
    const text = bar.rows.map((row, at) => ({
      x: log ? Math.log10(Math.max(row.value || 0, row.high || 0, row.published || 0, least / 2)) : Math.max(row.value || 0, row.high || 0, row.published || 0), xanchor: "left", xshift: row.published === null ? 3 : 8, y: at, yanchor: "middle", showarrow: false, font: { size: 11, color: css("--ink") },
      text: short(row.value) + (rate && row.ideal !== null ? ` (${short(row.ideal, 0)} %)` : ""),
    }));
    const left = Math.min(150, div.clientWidth * 0.4), across = Math.max(1, div.clientWidth - left - 8);
    const behind = Math.min(0.6, (10 + LETTER * longest(text.map((one) => one.text))) / across), room = 1 / (1 - behind); // for the text behind the longest bar
    await Plotly.newPlot(div, traces, {
      ...base, dragmode: false, width: div.clientWidth, margin: { l: left, r: 8, t: 4, b: 24 }, bargap: 0.25, annotations: text,
      xaxis: { ...base.xaxis, ticksuffix: "", title: undefined, showgrid: true, nticks: 4, fixedrange: true, type: log ? "log" : "linear", range: log ? [Math.log10(least / 2), Math.log10(most) + (room - 1) * (Math.log10(most) - Math.log10(least / 2))] : [0, most * room], domain: [0, 1] },
      yaxis: { ...base.yaxis, showgrid: false, tickvals: ys, ticktext: labels.map((label) => plain(label.length > 22 ? `${label.slice(0, 21)}…` : label)), range: [labels.length - 0.5, -0.5], tickfont: { size: 11, color: css("--ink") } },
    }, { ...CONFIG, staticPlot: true });
  }
}

class StripPlot extends Plot {
  constructor(cell, first, second) {
    super(cell, first, 185, { tickformat: TICKS, ticksuffix: " s", ...titled("difference") }, { canvas: "above", label: "Difference in end-to-end latency, request by request" });
    const one = first.requests, two = second.requests, points = [];
    for (let at = 0; at < one.request_id.length; at += 1) {
      const other = second.place.get(one.request_id[at]);
      if (other === undefined) continue;
      const difference = two.finish[other] - two.arrival[other] - (one.finish[at] - one.arrival[at]);
      if (Number.isFinite(difference)) points.push([one.arrival[at], difference, one.request_id[at]]);
    }
    this.points = points;
    const size = Math.max(1e-3, ...points.map((point) => Math.abs(point[1])));
    this.y = { ...this.y, range: [-1.08 * size, 1.08 * size], zeroline: true, zerolinecolor: css("--muted") };
  }

  extra() { return { xaxis: { ...layout(this.height, this.y).xaxis, ...titled("time of arrival") } }; }

  paint(context, width, height) {
    const [low, high] = this.y.range, worse = css("--internal"), better = css("--live"), equal = css("--muted");
    for (const [arrival, difference, request] of this.points) {
      const x = this.x(arrival), chosen = request === state.request;
      if (x < 0 || x > width) continue;
      context.globalAlpha = state.request === null || chosen ? 0.7 : 0.2;
      context.fillStyle = difference > 0 ? worse : difference < 0 ? better : equal;
      const size = chosen ? 6 : 3;
      context.fillRect(x - size / 2, (1 - (difference - low) / (high - low)) * height - size / 2, size, size);
    }
    context.globalAlpha = 1;
  }

  under(time, up) {
    const [low, high] = this.y.range, value = low + up * (high - low), span = state.range[1] - state.range[0];
    let best = null, nearest = 0.03;
    for (const point of this.points) {
      const far = Math.hypot((point[0] - time) / span, (point[1] - value) / (high - low));
      if (far < nearest) { nearest = far; best = point; }
    }
    return best && { text: `request ${best[2]}\n${best[1] > 0 ? "+" : ""}${short(best[1])} s`, request: best[2] };
  }
}
