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
      [this.steps, this.requests, this.events, this.map, this.preempted] = await Promise.all([
        unpackAll(payload.steps), unpackAll(payload.requests), unpackAll(payload.events), payload.map && unpackAll(payload.map), unpack(payload.preempted),
      ]);
      this.place = new Map(Array.from(this.requests.request_id, (id, at) => [id, at]));
      const last = this.steps.start.length - 1;
      this.until = last < 0 ? 0 : this.steps.start[last] + this.steps.duration[last];
      this.ticks = this.memoryEvents();
    })();
    return this.loaded;
  }

  rowAt(time) { return atOrBefore(this.steps.start, time); }

  // instants worth stepping to, with words
  memoryEvents() {
    const found = [];
    if (this.facts.exact_events) {
      const { time, request, event, slots, cause } = this.events;
      for (let at = 0; at < time.length; at += 1) {
        const by = cause[at] >= 0 && cause[at] !== request[at] ? `, for request ${cause[at]}` : "";
        const size = slots[at] ? `, ${slots[at]} slots` : "";
        found.push({ time: time[at], kind: EVENTS[event[at]], request: request[at], text: `${EVENTS[event[at]].replace("_", " ")}: request ${request[at]}${size}${by}` });
      }
    } else {
      for (const time of this.preempted) found.push({ time, kind: "preempt", request: null, text: "preemption" });
    }
    const { status, reason, arrival, request_id } = this.requests;
    if (!found.some((one) => one.kind === "refuse")) {
      for (let at = 0; at < status.length; at += 1) {
        if (STATUSES[status[at]] === "refused") found.push({ time: arrival[at], kind: "refuse", request: request_id[at], text: `refused: request ${request_id[at]} (${this.facts.reasons[reason[at]]})` });
      }
    }
    return found.sort((one, other) => one.time - other.time);
  }
}

const columns = facts.columns.map((_, index) => new Column(index));
