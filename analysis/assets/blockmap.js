// View 1: physical blocks over time, coloured by the reader's choice from planes of small integers.
// names of the parts of a mix; none if requests are no mix
const PARTS = [...new Set(facts.columns.flatMap((column) => column.parts))];
const COLOURS = [["state", "use"], ["owner", "request"], ...(facts.columns.some((column) => column.groups) ? [["group", "prefix group"]] : []), ...(PARTS.length ? [["part", "part of the mix"]] : []), ["references", "sequences sharing"], ["age", "age of the request"], ["fill", "how full"]];
// no oranges: those mean waste
const WHEEL = ["#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#7a5cc0", "#117733", "#d6cc3a", "#332288", "#44aa99", "#88ccee", "#aa4499", "#8a9a2b"];
// nor green, which means cached: parts are few, and each is named
const APART = WHEEL.filter((colour) => colour !== "#009e73");

// what the colours mean, beside the choice
const MEANINGS = {
  owner: "Each colour is a request; stripes are blocks that sequences share.",
  group: "Each colour is a group of requests whose prompts begin alike; grey ones begin like no other; stripes are shared.",
  part: "Each colour is a part of the mix:",
  state: "Blue: holds K/V of a running sequence.",
  references: "Blue is shared, darker by more sequences; grey is held by one.",
  age: "Dark blue is held by requests that arrived long ago, pale blue by new ones.",
  fill: "Dark blue is full, pale is empty.",
};

function mapNote() {
  const padded = state.shown.some((index) => facts.columns[index].ledger.peak.rounding > 0), cached = state.shown.some((index) => facts.columns[index].ledger.peak.cached > 0);
  const swatches = state.colour !== "part" ? [] : PARTS.map((name, at) => el("span", { className: "swatch-of" }, el("span", { className: "swatch", style: `background:${APART[at % APART.length]}` }), `${name} `));
  byId("map-note").replaceChildren(MEANINGS[state.colour], " ", ...swatches, `Orange: held but empty.${padded ? " Yellow: held because placement rounds up." : ""}${cached ? " Green: cached, evictable." : ""} Grey: free.`);
}

// why there is no map
function unmapped(column) {
  if (!column.steps.live.some((slots) => slots)) return "nothing was ever held";
  if (column.facts.kind === "growing") return "tensors are in no blocks, so there are none to draw";
  return "no snapshot of the blocks: telemetry.blocks is off, or the run too short for one";
}

class BlockMapPlot extends Plot {
  constructor(cell, column) {
    const blocks = column.facts.num_blocks;
    super(cell, column, narrow() ? 200 : 300, { range: [0.5, blocks + 0.5], fixedrange: coarse, showgrid: false, ...titled("block") },
      { canvas: "below", label: `Block map of ${column.facts.label}: ${blocks} physical blocks over time` });
    const map = column.map;
    if (!map) {
      this.box.append(el("div", { className: "empty", style: "position:absolute;inset:0" }, unmapped(column)));
      return;
    }
    this.rows = map.rows;
    this.count = map.instants.length;
    // few large blocks: each gets several pixel rows, so that filling shows as an edge that rises
    this.sub = Math.max(1, Math.min(32, Math.floor(900 / this.rows)));
    this.picture = document.createElement("canvas");
    this.picture.width = this.count;
    this.picture.height = this.rows * this.sub;
  }

  // what each owner is coloured by, as numbers, if colours tell owners apart
  names() {
    const { map, facts: about } = this.column;
    if (state.colour === "part") return map.part ? Array.from(map.part, (at) => PARTS.indexOf(about.parts[at])) : new Array(map.owners.length).fill(-1);
    return { owner: map.owners, group: map.group }[state.colour];
  }

  tint() {
    const { map, requests } = this.column;
    const free = rgb(css("--free")), waste = mix(rgb(css("--internal")), free, 0.45), panel = rgb(css("--panel"));
    const cached = rgb(css("--cached")), live = rgb(css("--live")), queued = rgb(css("--queued")), unshared = mix(queued, free, 0.2);
    const wheel = (state.colour === "part" ? APART : WHEEL).map(rgb);
    const owners = map.owners, selected = state.request, rounding = mix(rgb(css("--rounding")), free, 0.45);
    const base = new Array(owners.length), names = this.names(), named = names !== undefined;
    for (let at = 0; at < owners.length; at += 1) {
      const name = named ? names[at] : -1;
      let colour = !named ? live : name < 0 ? queued : wheel[name % wheel.length];
      if (named) colour = mix(colour, panel, 0.12 * (Math.floor(Math.max(0, name) / wheel.length) % 3));
      if (selected !== null) colour = owners[at] === selected ? rgb(css("--mark")) : mix(colour, free, 0.72);
      base[at] = colour;
    }
    const scale = (part) => mix(mix(live, panel, 0.75), live, Math.min(1, Math.max(0, part)));
    const slowest = Math.max(1e-9, ...Array.from(requests.finish, (end, at) => (Number.isFinite(end) ? end - requests.arrival[at] : 0)));
    return (code, references, empty, instant) => {
      if (code === 0) return [free, free];
      if (code === 1) return selected === null ? [cached, cached] : [mix(cached, free, 0.72), free];
      const owner = owners[code - 2];
      if (!references) return [rounding, rounding].map((colour) => (selected !== null && owner !== selected ? mix(colour, free, 0.7) : colour));
      let colour = base[code - 2];
      if (selected === null && !named) {
        if (state.colour === "state") colour = live;
        else if (state.colour === "references") colour = references > 1 ? scale(0.35 + 0.65 * Math.min(1, Math.log2(references) / 5)) : unshared;
        else if (state.colour === "fill") colour = scale(1 - empty / 255);
        else colour = scale((instant - map.born[code - 2]) / slowest);
      }
      return [colour, selected !== null && owner !== selected ? mix(waste, free, 0.7) : waste];
    };
  }

  colour() {
    if (!this.picture) return;
    const { map } = this.column, { rows, count, sub } = this;
    const image = new ImageData(count, rows * sub), pixels = new Uint32Array(image.data.buffer);
    const tint = this.tint(), { owner, references, empty, instants } = map, ages = state.colour === "age", stripes = state.colour === "owner" || state.colour === "group";
    const known = new Map(); // colours worked out once for each owner, sharing and filling, unless they age
    const words = (code, shared, blank, at) => {
      const [solid, waste] = tint(code, shared, blank, instants[at]);
      return [word(solid), word(waste), word(mix(solid, [255, 255, 255], 0.45)), word(mix(solid, waste, blank / 255))];
    };
    for (let row = 0; row < rows; row += 1) {
      // along time a block mostly stays what it was, so its colours are worked out only when it changes
      let code = -1, shared = -1, blank = -1, full = 0, hollow = 0, light = 0, blend = 0, filled = 0;
      for (let at = 0, cell = row * count; at < count; at += 1, cell += 1) {
        if (owner[cell] !== code || references[cell] !== shared || empty[cell] !== blank || (ages && code > 1)) {
          [code, shared, blank] = [owner[cell], references[cell], empty[cell]];
          const key = (code * 256 + shared) * 256 + blank;
          let colours = ages ? undefined : known.get(key);
          if (!colours) known.set(key, (colours = words(code, shared, blank, at)));
          [full, hollow, light, blend] = colours;
          filled = Math.ceil(sub * (1 - blank / 255));
        }
        const striped = stripes && shared > 1;
        if (sub === 1) { pixels[(rows - 1 - row) * count + at] = striped && ((at >> 1) + (row >> 1)) % 2 ? light : blend; continue; }
        for (let line = 0, to = ((rows - row) * sub - 1) * count + at; line < sub; line += 1, to -= count) {
          if (line >= filled) pixels[to] = hollow;
          else pixels[to] = striped && ((at >> 1) + line) % 2 ? light : full;
        }
      }
    }
    this.picture.getContext("2d").putImageData(image, 0, 0);
    this.bytes = image.data;
    this.squeezedFor = "";
  }

  async draw() { this.colour(); await super.draw(); }
  refresh() { this.colour(); this.repaint(); }

  paint(context, width, height) {
    if (!this.picture) return;
    const { instants } = this.column.map, { count } = this;
    const blocks = this.column.facts.num_blocks;
    const [low, high] = this.div.layout ? this.div.layout.yaxis.range : [0.5, blocks + 0.5];
    const all = this.picture.height, scale = all / blocks;
    const top = all - (high - 0.5) * scale, tall = (high - low) * scale;
    // more rows than pixels: averaged upwards only, so that instants stay apart; else every block is sharp
    const pixels = Math.round(height * (window.devicePixelRatio || 1));
    let picture = this.picture, from0 = top, span = tall;
    if (tall > pixels) {
      const key = `${top},${tall},${pixels}`;
      if (this.squeezedFor !== key) {
        this.squeezed = this.squeeze(top, tall, pixels);
        this.squeezedFor = key;
      }
      [picture, from0, span] = [this.squeezed, 0, pixels];
    }
    context.imageSmoothingEnabled = false;
    // nothing is held before the first snapshot but in the step that ends with it
    const start = Math.min(width, Math.max(0, this.x(instants[0])));
    context.fillStyle = css("--free");
    context.fillRect(0, 0, start, height);
    const first = atOrBefore(instants, state.range[0]), ratio = window.devicePixelRatio || 1, snap = (at) => Math.round(at * ratio) / ratio;
    for (let at = first; at < count && instants[at] <= state.range[1]; at += 1) {
      // to whole pixels of the screen, or the seams between instants would show
      const from = snap(Math.max(0, this.x(instants[at]))), to = snap(Math.min(width, this.x(at + 1 < count ? instants[at + 1] : this.column.until)));
      if (to > from) context.drawImage(picture, at, from0, 1, span, from, 0, to - from, height);
    }
    const over = this.x(this.column.until), words = `all done after ${short(this.column.until)} s`;
    context.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    if (over >= 0 && width - over > context.measureText(words).width + 20) {
      context.fillStyle = css("--muted");
      context.fillText(words, over + 10, height / 2);
    }
  }

  // the mean colour of the rows that share a pixel
  squeeze(top, tall, pixels) {
    const { count, bytes } = this, image = new ImageData(count, pixels), sums = new Uint32Array(3 * count);
    for (let y = 0; y < pixels; y += 1) {
      const first = Math.max(0, Math.floor(top + (y * tall) / pixels));
      const last = Math.min(this.picture.height, Math.max(first + 1, Math.floor(top + ((y + 1) * tall) / pixels)));
      sums.fill(0);
      for (let row = first; row < last; row += 1) {
        for (let at = 0, from = 4 * row * count; at < 3 * count; at += 3, from += 4) {
          sums[at] += bytes[from]; sums[at + 1] += bytes[from + 1]; sums[at + 2] += bytes[from + 2];
        }
      }
      const rows = Math.max(1, last - first);
      for (let at = 0, to = 4 * y * count; at < 3 * count; at += 3, to += 4) {
        image.data[to] = sums[at] / rows; image.data[to + 1] = sums[at + 1] / rows; image.data[to + 2] = sums[at + 2] / rows; image.data[to + 3] = 255;
      }
    }
    const canvas = document.createElement("canvas");
    canvas.width = count;
    canvas.height = pixels;
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }

  cellAt(time, up) {
    const { map, facts: about } = this.column;
    if (!map || up < 0 || up > 1 || time > this.column.until) return null;
    const [low, high] = this.div.layout.yaxis.range;
    const block = Math.round(low + up * (high - low));
    if (block < 1 || block > about.num_blocks) return null;
    const row = Math.min(this.rows - 1, Math.floor((block - 1) / map.stride)), at = atOrBefore(map.instants, time);
    if (time < map.instants[0]) return null;
    return { block: row * map.stride + 1, instant: map.instants[at], at: row * this.count + at };
  }

  under(time, up) {
    const cell = this.cellAt(time, up);
    if (!cell) return null;
    const { map, facts: about } = this.column, code = map.owner[cell.at];
    const where = `block ${cell.block.toLocaleString("en-US")} at ${seconds(cell.instant)}`;
    if (code === 0) return { text: `${where}\nfree` };
    if (code === 1) return { text: `${where}\ncached only, evictable` };
    if (!map.references[cell.at]) return { text: `${where}\nheld for request ${map.owners[code - 2]}, in no block table:\nplacement rounds its size up`, request: map.owners[code - 2] };
    const request = map.owners[code - 2], shared = map.references[cell.at];
    // how empty a block is comes in parts of 255, rounded up: of larger blocks slots are not known one by one
    const empty = Math.floor((map.empty[cell.at] * about.block_size) / 255), near = about.block_size > 255 && empty % about.block_size ? "about " : "";
    const lines = [where, `request ${request}`, `${near}${number(about.block_size - empty)} of ${number(about.block_size)} slots hold K/V`];
    if (shared > 1) lines.push(`shared by ${shared === 255 ? "255 or more" : shared} sequences`);
    if (map.part) lines.push(`part ${about.parts[map.part[code - 2]]}`);
    if (map.group[code - 2] >= 0) lines.push(`prefix group ${map.group[code - 2]}`);
    return { text: lines.join("\n"), request };
  }

  // physical blocks of a request at an instant, as far as rows are drawn
  tableOf(request, time) {
    const { map } = this.column;
    if (!map) return null;
    const code = map.owners.indexOf(request) + 2, at = atOrBefore(map.instants, time), found = [];
    if (code < 2) return { instant: map.instants[at], blocks: found };
    for (let row = 0; row < this.rows; row += 1) if (map.owner[row * this.count + at] === code && map.references[row * this.count + at]) found.push(row * map.stride + 1);
    return { instant: map.instants[at], blocks: found };
  }
}
