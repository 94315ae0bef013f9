// View 3: what the engine does: batch and queue above, tokens a second below, and a strip of causes and events.
class PulsePlot extends Plot {
  constructor(cell, column) {
    const top = pulseTops();
    super(cell, column, narrow() ? 200 : 250, { range: [0, top.batch * 1.06], domain: [0.5, 1], title: { text: "sequences", standoff: 2, font: { size: 11 } } },
      { canvas: "above", label: `Engine pulse of ${column.facts.label}: running, waiting, tokens a second, memory events` });
    this.top = top;
    const { steps } = column;
    this.times = [...steps.start, column.until];
    const closed = (values) => [...values, values[values.length - 1]];
    this.running = closed(steps.running);
    this.waiting = closed(steps.waiting).map((value) => Math.min(value, top.batch * 1.06));
    const bins = steps.bin_decode_tps.length, width = column.until / Math.max(1, bins);
    this.binTimes = Array.from({ length: bins + 1 }, (_, at) => at * width);
  }

  traces() {
    const { steps } = this.column;
    const line = (y, name) => ({ x: this.times, y, mode: "lines", line: { shape: "hv", width: 1.4, color: css(name) }, hoverinfo: "skip" });
    const area = (values, name) => ({
      x: this.binTimes, y: [...values, values[values.length - 1]], yaxis: "y2", stackgroup: "tokens", mode: "lines", line: { width: 0, shape: "hv" }, fillcolor: css(name), hoverinfo: "skip",
    });
    return [line(this.waiting, "--waiting"), line(this.running, "--running"), area(steps.bin_decode_tps, "--decode"), area(steps.bin_prefill_tps, "--prefill")];
  }

  extra() {
    const base = layout(this.height, {}).yaxis;
    return { yaxis2: { ...base, range: [0, this.top.tokens * 1.06], domain: [0.13, 0.43], nticks: 3, anchor: "x", title: { text: "tokens/s", standoff: 2, font: { size: 11 } } } };
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
      if (at < 0 || at > width || tick.kind === "resume" || tick.kind === "swap_in") continue;
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

// one scale for all columns shown, so that heights compare; a queue far above the batch is cut off
function pulseTops() {
  let batch = 1, queue = 1, tokens = 1;
  for (const index of state.shown) {
    const { steps } = columns[index];
    for (const value of steps.running) batch = Math.max(batch, value);
    for (const value of steps.waiting) queue = Math.max(queue, value);
    for (let at = 0; at < steps.bin_decode_tps.length; at += 1) tokens = Math.max(tokens, steps.bin_decode_tps[at] + steps.bin_prefill_tps[at]);
  }
  return { batch: Math.max(batch, Math.min(queue, 4 * batch)), tokens };
}
