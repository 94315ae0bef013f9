// View 2: the ledger as a stacked area that sums to the pool.
class LedgerPlot extends Plot {
  constructor(cell, column) {
    super(cell, column, narrow() ? 150 : 190, { range: [0, 100], tickvals: [0, 25, 50, 75, 100], ticktext: ["0 %", "25 %", "50 %", "75 %", "100 %"], ...titled("share of the pool") }, { label: `Ledger of ${column.facts.label} over time, shares of the pool` });
    const { steps } = column;
    const peak = steps.live.reduce((best, value, at) => (value > steps.live[best] ? at : best), 0);
    this.peak = { time: steps.start[peak], share: (100 * steps.live[peak]) / column.facts.capacity };
    this.times = [...steps.start, column.until];
    this.names = SHARES.filter((name) => column.facts.ledger.peak[name] > 0);
    this.shares = this.names.map((name) => {
      const values = Array.from(steps[name], (value) => (100 * value) / column.facts.capacity);
      values.push(values[values.length - 1]);
      return values;
    });
  }

  traces() {
    return this.names.map((name, at) => ({
      x: this.times, y: this.shares[at], stackgroup: "pool", line: { width: 0, shape: "hv" }, fillcolor: css(`--${name}`), ...(name === "internal" ? { fillpattern: { shape: "/", size: 7, solidity: 0.2, fillmode: "overlay", fgcolor: css("--hatch") } } : {}), mode: "lines", hoverinfo: "skip",
    }));
  }

  extra() {
    const { time, share } = this.peak;
    const right = time > state.until / 2;
    return {
      shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: share, y1: share, line: { color: css("--mark"), width: 1, dash: "dot" }, opacity: 0.6 }],
      annotations: [{
        x: time, y: share, text: `peak ${share > 0 && share < 1 ? "under 1" : share.toFixed(0)} % live`, showarrow: true, arrowhead: 2, arrowsize: 0.8, arrowwidth: 1, arrowcolor: css("--mark"), ax: right ? -46 : 46, ay: share > 80 ? 22 : -20,
        font: { size: 11, color: css("--ink") }, bgcolor: css("--panel"), borderpad: 2, opacity: 0.9,
      }],
    };
  }

  under(time) {
    const { steps, facts: about } = this.column;
    if (time > this.column.until) return null;
    const row = this.column.rowAt(time);
    const lines = SHARES.filter((name) => steps[name][row]).map((name) => `${name} ${((100 * steps[name][row]) / about.capacity).toFixed(1)} %`);
    return { text: [`ledger at ${seconds(steps.start[row])}`, ...lines].join("\n") };
  }
}
