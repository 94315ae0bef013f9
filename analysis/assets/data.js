// The packed arrays of a column: byte planes, deflated, in base64; unpacked when first shown.
const ARRAYS = { f8: Float64Array, f4: Float32Array, i4: Int32Array, u4: Uint32Array, u2: Uint16Array, u1: Uint8Array, i1: Int8Array };

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text), raw = new Uint8Array(letters.length);
  for (let at = 0; at < raw.length; at += 1) raw[at] = letters.charCodeAt(at);
  return raw;
}

async function unpack(packed) {
  const kind = ARRAYS[packed.type];
  const stream = new Blob([fromBase64(packed.data)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const width = kind.BYTES_PER_ELEMENT, count = packed.length;
  if (width === 1) return kind === Uint8Array ? planes : new kind(planes.buffer);
  if (width === 2) {
    const joined = new Uint16Array(count);
    for (let at = 0; at < count; at += 1) joined[at] = planes[at] | (planes[count + at] << 8);
    return joined;
  }
  const joined = new Uint8Array(count * width);
  for (let plane = 0; plane < width; plane += 1) {
    for (let at = 0, from = plane * count, to = plane; at < count; at += 1, to += width) joined[to] = planes[from + at];
  }
  return new kind(joined.buffer);
}

async function unpackAll(group) {
  const names = Object.keys(group);
  const arrays = await Promise.all(names.map((name) => (group[name] && group[name].data !== undefined ? unpack(group[name]) : group[name])));
  return Object.fromEntries(names.map((name, at) => [name, arrays[at]]));
}

// last place whose value is not above `value`, or 0
function atOrBefore(sorted, value) {
  let low = 0, high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= value) low = middle + 1; else high = middle;
  }
  return Math.max(0, low - 1);
}

class Column {
  constructor(index) {
    this.index = index;
    this.facts = facts.columns[index];
  }

  async load() {
    if (this.loaded) return this.loaded;
    this.loaded = (async () => {
      const node = byId(`payload-${this.index}`);
      const payload = JSON.parse(node.textContent);
      node.textContent = ""; // the text is not needed again
      [this.steps, this.requests, this.events, this.map] = await Promise.all([
        unpackAll(payload.steps), unpackAll(payload.requests), unpackAll(payload.events), payload.map && unpackAll(payload.map),
      ]);
      this.place = new Map(Array.from(this.requests.request_id, (id, at) => [id, at]));
      this.until = this.facts.until;
      this.ticks = this.memoryEvents();
    })();
    return this.loaded;
  }

  rowAt(time) { return atOrBefore(this.steps.start, time); }

  // instants worth stepping to, with words
  memoryEvents() {
    const { time, kind, request, amount, cause, reason } = this.events, { reasons } = this.facts.events;
    return Array.from(time, (when, at) => {
      const name = KINDS[kind[at]], by = cause[at] < 0 ? null : cause[at], of = request[at] < 0 ? null : request[at];
      return { time: when, kind: name, request: of, cause: by, text: tickWords(name, of, amount[at], by, reasons[reason[at]]) };
    });
  }
}

function tickWords(kind, request, amount, cause, reason) {
  const slots = `${number(amount)} slots`, why = reason ? ` (${reason})` : "";
  if (kind === "refuse") return `request ${request} is refused: ${reason}`;
  if (kind === "evict") return `${number(amount)} cached block${amount === 1 ? "" : "s"} evicted ${cause === null ? "as running sequences grow" : `to admit request ${cause}`}`;
  if (request === null) return "a step preempts";
  if (cause === request) return `request ${request} gives up its own ${slots}: it cannot grow${why}`;
  return `request ${request} ${kind === "preempt" ? "is preempted and loses" : "is swapped out with"} ${slots}: request ${cause} needs room${why}`;
}

const columns = facts.columns.map((_, index) => new Column(index));
