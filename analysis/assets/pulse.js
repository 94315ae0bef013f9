// View 3: what the engine does: batch and queue above, tokens a second below, and lanes of causes and events.
const LANES = [[["preempt", "swap_out"], "preempted", "--lost", "preempt"], [["refuse"], "refused", "--ink", "refuse"], [["evict"], "blocks evicted", "--evicted", "evict"]];
const LANE = 14; // pixels

// lanes of the events that any allocator shown has, so that columns stay level
const lanesShown = () => LANES.filter(([kinds]) => state.shown.some((index) => kinds.some((kind) => facts.columns[index].events.counts[kind])));

class PulsePlot extends Plot {
  constructor(cell, column) {
    const top = pulseTops(), lanes = lanesShown(), height = (narrow() ? 230 : 280) + LANE * lanes.length;
    const floor = (LANE * (lanes.length + 1) + 8) / (height - MARGIN().t - MARGIN().b), room = 1 - floor;
    const panels = { running: [floor + 0.68 * room, 1], waiting: [floor + 0.34 * room, floor + 0.6 * room], tokens: [floor, floor + 0.26 * room] };
    super(cell, column, height, { range: [0, top.running * 1.08], domain: panels.running, nticks: 3, ...titled("running") },
      { canvas: "above", label: `Engine pulse of ${column.facts.label}: running, waiting, tokens a second, memory events` });
    this.top = top;
    this.panels = panels;
    this.lanes = lanes;
    const names = el("div", { className: "lanes", ariaHidden: "true" }, el("span", {}, "waits"), ...lanes.map((lane) => el("span", {}, lane[3])));
    names.style.top = `${height - MARGIN().b - LANE * (lanes.length + 1)}px`;
    names.style.width = `${MARGIN().l - 4}px`;
    this.box.append(names);
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
    const axis = (domain, most, text) => ({ ...base, range: [0, most * 1.08], domain, anchor: "x", ...titled(text) });
    return { yaxis2: axis(this.panels.waiting, this.top.waiting, "waiting"), yaxis3: axis(this.panels.tokens, this.top.tokens, "tokens/s") };
  }

  // the lanes at the bottom: what the head of the queue waits for, and a tick for each event
  paint(context, width, height) {
    const { steps, ticks } = this.column, strip = LANE - 4, top = height - LANE * (this.lanes.length + 1), y = top + 2;
    context.fillStyle = css("--free");
    for (let lane = 0; lane <= this.lanes.length; lane += 1) context.fillRect(0, y + LANE * lane, width, strip);
    const colour = { memory: css("--w-memory"), seats: css("--w-seats"), budget: css("--w-budget"), order: css("--w-seats") };
    context.globalAlpha = 0.6;
    for (let row = this.column.rowAt(state.range[0]); row < steps.start.length && steps.start[row] <= state.range[1]; row += 1) {
      const why = BLOCKED[steps.blocked[row]];
      if (!why) continue;
      const from = this.x(steps.start[row]), to = this.x(row + 1 < steps.start.length ? steps.start[row + 1] : this.column.until);
      context.fillStyle = colour[why];
      context.fillRect(Math.max(0, from), y, Math.max(0.6, Math.min(to, width) - Math.max(0, from)), strip);
    }
    context.globalAlpha = 1;
    this.lanes.forEach(([kinds, , name], lane) => {
      const plain = css(name), mark = css("--mark");
      for (const tick of ticks) {
        const at = this.x(tick.time);
        if (at < 0 || at > width || !kinds.includes(tick.kind)) continue;
        const chosen = state.request !== null && (tick.request === state.request || tick.cause === state.request);
        context.fillStyle = chosen ? mark : plain;
        context.globalAlpha = state.request === null || chosen ? 1 : 0.35;
        context.fillRect(at - (chosen ? 1.2 : 0.6), y + LANE * (lane + 1) - (chosen ? 2 : 0), chosen ? 2.4 : 1.2, strip + (chosen ? 4 : 0));
      }
    });
    context.globalAlpha = 1;
  }

  under(time, up) {
    const { steps, ticks } = this.column;
    if (time > this.column.until) return null;
    const row = this.column.rowAt(time), bin = Math.min(steps.bin_decode_tps.length - 1, Math.floor((time / this.column.until) * steps.bin_decode_tps.length));
    const lines = [`step ${steps.step[row]} at ${seconds(steps.start[row])}`, `${number(steps.running[row])} running, ${number(steps.waiting[row])} waiting`,
      `${number(steps.prefill_tokens[row])} prefill and ${number(steps.decode_tokens[row])} decode tokens in this step`,
      `about ${short(steps.bin_prefill_tps[bin])} prefill and ${short(steps.bin_decode_tps[bin])} decode tokens/s here`];
    const why = BLOCKED[steps.blocked[row]];
    if (why) lines.push(`the next request waits for ${AWAITED[why]}`);
    const reach = (4 / this.inner.width) * (state.range[1] - state.range[0]);
    const lane = this.lanes[this.lanes.length - 1 - Math.floor((up * this.inner.height) / LANE)];
    const near = ticks.filter((tick) => Math.abs(tick.time - time) < reach && (!lane || lane[0].includes(tick.kind))).sort((one, other) => Math.abs(one.time - time) - Math.abs(other.time - time));
    const told = near.slice(0, 3).sort((one, other) => one.time - other.time).map((tick) => `${seconds(tick.time)}: ${tick.text}`);
    if (near.length > told.length) told.push(`and ${near.length - told.length} more here`);
    if (lane) return { text: told.length ? told.join("\n") : `${lane[1]}: none here`, request: near.length ? near[0].request : null };
    lines.push(...told);
    return { text: lines.join("\n") };
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
