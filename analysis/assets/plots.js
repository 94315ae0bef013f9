// One plot: plotly draws axes and lines, a canvas of ours below or above draws what has too many pieces.
const MARGIN = () => ({ l: narrow() ? 54 : 62, r: 10, t: 9, b: 40 });
const titled = (text) => ({ title: { text, standoff: 2, font: { size: 11 } } });
const CONFIG = { displayModeBar: false, doubleClick: false, responsive: false, showTips: false };
const coarse = matchMedia("(pointer: coarse)").matches;

function layout(height, y, extra) {
  const ink = css("--muted"), line = css("--line");
  const axis = { color: ink, gridcolor: line, zeroline: false, linecolor: line, tickfont: { size: 11 }, automargin: false };
  return {
    height, margin: MARGIN(), paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
    dragmode: coarse ? false : "zoom", hovermode: false, font: { family: "inherit", color: ink, size: 11 },
    xaxis: { ...axis, range: state.range.slice(), tickformat: TICKS, ticksuffix: " s", ...titled("time"), showgrid: false, anchor: "free", position: 0, nticks: narrow() ? 5 : 8 },
    yaxis: { ...axis, tickformat: narrow() ? "~s" : TICKS, fixedrange: true, nticks: 5, ...y }, ...extra,
  };
}

class Plot {
  // cell: where; height in pixels; y: plotly axis; canvas: "below", "above" or nothing
  constructor(cell, column, height, y, options = {}) {
    this.column = column;
    this.height = height;
    this.y = y;
    this.options = options;
    this.box = el("div", { className: "plot" });
    this.box.style.height = `${height}px`;
    if (options.canvas) this.canvas = el("canvas", { ariaHidden: "true" });
    this.div = el("div", {});
    this.line = el("div", { className: "cursor", hidden: true });
    if (options.canvas === "below") this.box.append(this.canvas);
    this.box.append(this.div);
    if (options.canvas === "above") this.box.append(this.canvas);
    this.box.append(this.line);
    this.box.setAttribute("role", "img");
    this.box.setAttribute("aria-label", options.label || "");
    cell.append(this.box);
  }

  traces() { return []; }
  paint() {}
  extra() { return {}; }

  async draw() {
    this.width = this.box.clientWidth;
    await Plotly.newPlot(this.div, this.traces(), { ...layout(this.height, this.y, this.extra()), width: this.width }, CONFIG);
    this.div.on("plotly_relayout", (change) => {
      if (change["xaxis.range[0]"] !== undefined) zoomTo(change["xaxis.range[0]"], change["xaxis.range[1]"]);
      if (change["yaxis.range[0]"] !== undefined || change["yaxis.autorange"]) this.repaint();
    });
    this.div.on("plotly_doubleclick", () => zoomTo(0, state.until));
    this.repaint();
    this.moveCursor();
  }

  redraw() { return Plotly.react(this.div, this.traces(), { ...layout(this.height, this.y, this.extra()), width: this.width = this.box.clientWidth }, CONFIG).then(() => { this.repaint(); this.moveCursor(); }); }

  setRange() {
    const [from, to] = this.div.layout.xaxis.range;
    const change = from === state.range[0] && to === state.range[1] ? null : Plotly.relayout(this.div, { "xaxis.range": state.range.slice() });
    this.repaint();
    this.moveCursor();
    return change;
  }

  get inner() {
    const margin = MARGIN();
    return { left: margin.l, top: margin.t, width: Math.max(1, this.width - margin.l - margin.r), height: this.height - margin.t - margin.b };
  }

  x(time) { const { width } = this.inner; return ((time - state.range[0]) / (state.range[1] - state.range[0])) * width; }
  timeAt(clientX) {
    const { left, width } = this.inner, from = this.box.getBoundingClientRect().left + left;
    return state.range[0] + ((clientX - from) / width) * (state.range[1] - state.range[0]);
  }
  // 0 at the bottom of the drawing area, 1 at its top
  heightAt(clientY) {
    const { top, height } = this.inner, from = this.box.getBoundingClientRect().top + top;
    return 1 - (clientY - from) / height;
  }

  repaint() {
    if (!this.canvas) return;
    const { left, top, width, height } = this.inner, ratio = window.devicePixelRatio || 1;
    Object.assign(this.canvas.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    const context = this.canvas.getContext("2d");
    context.scale(ratio, ratio);
    this.paint(context, width, height);
  }

  moveCursor() {
    const { left, top, width, height } = this.inner;
    const at = state.cursor === null ? -1 : this.x(state.cursor);
    this.line.hidden = !(at >= 0 && at <= width);
    Object.assign(this.line.style, { left: `${left + at}px`, top: `${top}px`, height: `${height}px` });
  }

  // words for the tooltip at (time, height), and the request there if any
  under() { return null; }
}
