// View 4: requests as bars through their phases, thick by the blocks they held.
const ORDERS = [["arrival", "arrival"], ["ttft", "time to first token"], ["waste", "blocks held for nothing"], ["preemptions", "preemptions"], ...(PARTS.length ? [["part", "part of the mix"]] : [])];

class RequestsPlot extends Plot {
  constructor(cell, column) {
    super(cell, column, narrow() ? 220 : 320, { range: [0, 1], visible: false }, { canvas: "below", label: `Requests of ${column.facts.label} through their phases` });
    const { requests } = column;
    this.end = Array.from(requests.finish, (end, at) => (STATUSES[requests.status[at]] === "refused" ? requests.arrival[at] : Number.isFinite(end) ? end : column.until));
    this.most = Math.max(1, ...requests.held);
    this.losses = new Map();
    for (let at = 0; at < requests.loss_of.length; at += 1) {
      const list = this.losses.get(requests.loss_of[at]) || [];
      const back = Math.min(requests.loss_until[at], column.until), first = requests.first_token[requests.loss_of[at]];
      const ready = Number.isFinite(requests.loss_ready[at]) ? requests.loss_ready[at] : requests.loss_swap[at] ? back : Number.isFinite(first) && first > back ? first : back;
      list.push([requests.loss_from[at], back, requests.loss_swap[at], ready]);
      this.losses.set(requests.loss_of[at], list);
    }
    const size = column.facts.block_size;
    const used = (at) => requests.prompt_tokens[at] + requests.generated_tokens[at] - 1;
    this.blocks = (at) => requests.held[at] || Math.ceil(Math.max(0, used(at)) / size); // an estimate where no snapshot tells
    this.keys = {
      arrival: (at) => requests.arrival[at],
      ttft: (at) => -(Number.isFinite(requests.first_token[at]) ? requests.first_token[at] - requests.arrival[at] : Infinity),
      waste: (at) => (requests.held[at] ? used(at) - requests.held[at] * size : 0),
      preemptions: (at) => -requests.preemptions[at],
      part: (at) => (requests.part ? requests.part[at] : 0),
    };
  }

  arrange() {
    const { requests } = this.column, [from, to] = state.range, seen = [];
    for (let at = 0; at < this.end.length; at += 1) if (requests.arrival[at] <= to && this.end[at] >= from) seen.push(at);
    const key = this.keys[state.order];
    seen.sort((one, other) => key(one) - key(other) || one - other);
    this.seen = seen;
    // where a sample is too dense to tell bars apart, each stands where it would among all requests:
    // packed, the stretches of which more is kept would look like more arrivals
    const first = seen.length ? requests.request_id[seen[0]] : 0;
    const spread = state.order === "arrival" && facts.requests.shown < facts.requests.total && seen.length > 4 * this.inner.height;
    this.places = seen.map((at, place) => (spread ? requests.request_id[at] - first : place));
  }

  paint(context, width, height) {
    this.arrange();
    const { requests, until } = this.column, { seen, places } = this;
    const row = Math.min(16, height / (1 + (places[places.length - 1] || 0)));
    this.row = row;
    const colour = Object.fromEntries(["queued", "prefill", "decode", "lost", "swapped", "recompute", "mark", "ink"].map((name) => [name, css(`--${name}`)]));
    const bar = (from, to, y, thick, fill) => {
      const left = Math.max(0, this.x(from)), right = Math.min(width, this.x(to));
      if (right < 0 || left > width || !(to > from)) return;
      context.fillStyle = fill;
      context.fillRect(left, y, Math.max(0.7, right - left), thick);
    };
    seen.forEach((at, turn) => {
      const chosen = requests.request_id[at] === state.request;
      context.globalAlpha = state.request === null || chosen ? 1 : 0.28;
      const middle = (places[turn] + 0.5) * row;
      const thick = Math.max(0.8, row * (0.25 + 0.65 * Math.sqrt(Math.min(1, this.blocks(at) / this.most))), chosen ? 4 : 0);
      const y = middle - thick / 2, thin = Math.max(0.6, Math.min(thick, row * 0.25));
      const arrival = requests.arrival[at], first = requests.first_token[at], started = requests.scheduled[at], end = this.end[at];
      if (STATUSES[requests.status[at]] === "refused") {
        const x = this.x(arrival);
        context.fillStyle = colour.ink;
        context.fillRect(x - 2, middle - 0.8, 4, 1.6);
        context.fillRect(x - 0.8, middle - 2, 1.6, 4);
        return;
      }
      bar(arrival, Number.isFinite(started) ? started : until, middle - thin / 2, thin, colour.queued);
      if (Number.isFinite(started)) bar(started, Number.isFinite(first) ? first : end, y, thick, colour.prefill);
      if (Number.isFinite(first)) bar(first, end, y, thick, colour.decode);
      for (const [from, to, swapped, ready] of this.losses.get(at) || []) {
        bar(from, Math.min(to, end), middle - thin, 2 * thin, swapped ? colour.swapped : colour.lost);
        bar(to, Math.min(ready, end), y, thick, colour.recompute);
      }
      if (requests.miss[at] && row >= 5) {
        context.strokeStyle = colour.mark;
        context.lineWidth = 1;
        const left = this.x(Number.isFinite(started) ? started : arrival);
        context.strokeRect(Math.max(-2, left), y - 0.5, Math.min(width + 2, this.x(end)) - Math.max(-2, left), thick + 1);
      } else if (requests.miss[at]) {
        context.fillStyle = colour.mark;
        context.fillRect(Math.min(width, this.x(end)), middle - Math.max(0.5, row / 2), 1.5, Math.max(1, row));
      }
    });
    context.globalAlpha = 1;
    if (!seen.length) { context.fillStyle = css("--muted"); context.fillText("no request in this window", 8, 16); }
  }

  under(time, up) {
    const { requests, facts: about } = this.column, place = Math.floor(((1 - up) * this.inner.height) / this.row);
    if (!this.seen || !this.seen.length || place < 0 || place > this.places[this.places.length - 1]) return null;
    const at = this.seen[atOrBefore(this.places, place)];
    return { text: [`request ${requests.request_id[at]}`, ...requestWords(this.column, at)].join("\n"), request: requests.request_id[at], about };
  }
}

// a block that requests share is recorded as the earliest one's that holds it
const NOT_ITS_OWN = " apart from those that an earlier request shares with it";
const sharesBlocks = (column, at) => at !== undefined && column.facts.ledger.peak.shared_savings > 0 && column.requests.prefix_group[at] >= 0;

function requestWords(column, at) {
  const { requests, facts: about } = column, status = STATUSES[requests.status[at]];
  const lines = [`${requests.part ? `${about.parts[requests.part[at]]}: ` : ""}${requests.prompt_tokens[at].toLocaleString("en-US")} prompt + ${requests.output_tokens[at].toLocaleString("en-US")} output tokens${requests.samples[at] > 1 ? `, ${requests.samples[at]} samples` : ""}`];
  if (status === "refused") return [...lines, `refused at arrival: ${about.reasons[requests.reason[at]]}`];
  const arrival = requests.arrival[at], outputs = requests.generated_tokens[at];
  const [started, first] = [requests.scheduled[at], requests.first_token[at]];
  lines.push([`arrived ${seconds(arrival)}`, Number.isFinite(started) ? `queued ${short(started - arrival)} s` : "never started", ...(Number.isFinite(first) ? [`TTFT ${short(first - arrival)} s`] : [])].join(", "));
  const ahead = requests.ahead[at], why = AWAITED[BLOCKED[requests.wait_cause[at]]], part = requests.wait_percent[at];
  const reason = why && part ? `for ${why} ${part} % of that time` : "";
  if (ahead) lines.push(`waited behind ${number(ahead)} other${ahead === 1 ? "" : "s"}${reason ? `, the first in line ${reason}` : ""}`);
  else if (reason) lines.push(`waited ${reason}`);
  if (status === "finished") {
    const pace = outputs > 1 ? `, TPOT ${short((1e3 * (requests.finish[at] - requests.first_token[at])) / (outputs - 1))} ms` : "";
    lines.push(`finished ${seconds(requests.finish[at])}${pace}, ${short((1e3 * (requests.finish[at] - arrival)) / outputs)} ms per token`);
  } else lines.push(`unfinished, ${outputs} tokens out`);
  if (requests.held[at]) lines.push(`seen to hold up to ${number(requests.held[at])} block${requests.held[at] === 1 ? "" : "s"}${sharesBlocks(column, at) ? NOT_ITS_OWN : ""}`);
  if (requests.cached_tokens[at]) lines.push(`${requests.cached_tokens[at]} prompt tokens from the prefix cache`);
  if (requests.preemptions[at]) lines.push(`preempted ${requests.preemptions[at] === 1 ? "once" : `${requests.preemptions[at]} times`}, ${number(requests.recomputed_tokens[at])} tokens recomputed${requests.swapped_blocks[at] ? `, ${requests.swapped_blocks[at]} blocks swapped` : ""}`);
  if (requests.miss[at]) lines.push("missed the SLO");
  return lines;
}

// under the requests of a column: those worth a look, each a way to follow it
function notableList(column) {
  return el("ul", { className: "notable" }, ...column.facts.notable.map(({ what, request_id: request, told }) => el("li", {}, `${what}: `,
    el("button", { type: "button", onclick: () => {
      const at = column.place.get(request), arrival = column.requests.arrival[at], end = Number.isFinite(column.requests.finish[at]) ? column.requests.finish[at] : column.until;
      if (arrival > state.range[1] || end < state.range[0]) zoomTo(arrival - 0.1 * (end - arrival), end + 0.1 * (end - arrival));
      select(request);
    } }, `request ${request}`), ` ${told}`)));
}
