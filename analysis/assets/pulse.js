// View 3: what the engine does: batch and queue above, tokens a second below, and a strip of causes and events.
const PANELS = { running: [0.72, 1], waiting: [0.42, 0.66], tokens: [0.13, 0.36] };

class PulsePlot extends Plot {
  constructor(cell, column) {
    const top = pulseTops();
    super(cell, column, narrow() ? 240 : 290, { range: [0, top.running * 1.08], domain: PANELS.running, nticks: 3, title: { text: "running", standoff: 2, font: { size: 11 } } },
      { canvas: "above", label: `Engine pulse of ${column.facts.label}: running, waiting, tokens a second, memory events` });
    this.top = top;
    const { steps } = column;
    this.times = [...steps.start, column.until];
    const closed = (values) => [...values, values[values.length - 1]];
    this.running = closed(steps.running);
    this.waiting = closed(steps.waiting);
    const bins = steps.bin_decode_tps.length, width = column.until / Math.max(1, bins);
    this.binTimes = Array.from({ length: bins + 1 }, (_, at) => at * width);
  }

  traces() {
    const { steps } = this.column;
    const line = (y, name, yaxis) => ({ x: this.times, y, yaxis, mode: "lines", line: { shape: "hv", width: 1.3, color: css(name) }, fill: "tozeroy", fillcolor: `${css(name)}33`, hoverinfo: "skip" });
    const area = (values, name) => ({
      x: this.binTimes, y: [...values, values[values.length - 1]], yaxis: "y3", stackgroup: "tokens", mode: "lines", line: { width: 0, shape: "hv" }, fillcolor: css(name), hoverinfo: "skip",
    });
    return [line(this.running, "--running", "y"), line(this.waiting, "--waiting", "y2"), area(steps.bin_decode_tps, "--decode"), area(steps.bin_prefill_tps, "--prefill")];
  }

  extra() {
    const base = layout(this.height, { nticks: 3 }).yaxis;
    const axis = (domain, most, text) => ({ ...base, range: [0, most * 1.08], domain, anchor: "x", title: { text, standoff: 2, font: { size: 11 } } });
    return { yaxis2: axis(PANELS.waiting, this.top.waiting, "waiting"), yaxis3: axis(PANELS.tokens, this.top.tokens, "tokens/s") };
  }

  // the strip at the bottom: what the head of the queue waits for, and ticks of events
  paint(context, width, height) {
    const { steps, ticks } = this.column, strip = height * 0.09, y = height - strip;
    context.fillStyle = css("--free");
    context.fillRect(0, y, width, strip);
    const colour = { memory: css("--w-memory"), seats: css("--w-seats"), budget: css("--w-budget"), order: css("--w-seats") };
    context.globalAlpha = 0.45;
    for (let row = this.column.rowAt(state.range[0]); row < steps.start.length && steps.start[row] <= state.range[1]; row += 1) {
      const why = BLOCKED[steps.blocked[row]];
      if (!why) continue;
      const from = this.x(steps.start[row]), to = this.x(row + 1 < steps.start.length ? steps.start[row + 1] : this.column.until);
      context.fillStyle = colour[why];
      context.fillRect(Math.max(0, from), y, Math.max(0.6, Math.min(to, width) - Math.max(0, from)), strip);
    }
    context.globalAlpha = 1;
    for (const tick of ticks) {
      const at = this.x(tick.time);
      if (at < 0 || at > width || tick.kind === "resume" || tick.kind === "recomputed" || tick.kind === "swap_in") continue;
      context.fillStyle = tick.kind === "refuse" ? css("--ink") : css("--lost");
      context.fillRect(at - 0.6, y - 3, 1.2, strip + 3);
    }
  }

  under(time, up) {
    const { steps, ticks } = this.column;
    if (time > this.column.until) return null;
    const row = this.column.rowAt(time), bin = Math.min(steps.bin_decode_tps.length - 1, Math.floor((time / this.column.until) * steps.bin_decode_tps.length));
    const lines = [`step ${steps.step[row]} at ${seconds(steps.start[row])}`, `${steps.running[row]} running, ${steps.waiting[row]} waiting`,
      `${steps.prefill_tokens[row]} prefill and ${steps.decode_tokens[row]} decode tokens in this step`,
      `about ${short(steps.bin_prefill_tps[bin])} prefill and ${short(steps.bin_decode_tps[bin])} decode tokens/s here`];
    const why = BLOCKED[steps.blocked[row]];
    if (why) lines.push(`the next request waits for ${{ memory: "memory", seats: "a seat", budget: "step budget", order: "its turn" }[why]}`);
    const reach = (4 / this.inner.width) * (state.range[1] - state.range[0]);
    const near = ticks.filter((tick) => Math.abs(tick.time - time) < reach);
    if (near.length) lines.push(near[0].text + (near.length > 1 ? `, and ${near.length - 1} more here` : ""));
    return { text: lines.join("\n"), request: near.length && up < 0.15 ? near[0].request : null };
  }
}

// one scale for all columns shown, so that heights compare
function pulseTops() {
  const top = { running: 1, waiting: 1, tokens: 1 };
  for (const index of state.shown) {
    const { steps } = columns[index];
    for (const name of ["running", "waiting"]) for (const value of steps[name]) top[name] = Math.max(top[name], value);
    for (let at = 0; at < steps.bin_decode_tps.length; at += 1) top.tokens = Math.max(top.tokens, steps.bin_decode_tps[at] + steps.bin_prefill_tps[at]);
  }
  return top;
}
