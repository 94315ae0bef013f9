// The player: frames come from recorded runs; nothing here decides what an allocator does.
const scenes = JSON.parse(document.getElementById("scenes").textContent);
const byId = (id) => document.getElementById(id);
const WHEEL = ["#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#7a5cc0", "#b8a800", "#117733", "#aa4499"];
const SHARES = ["live", "reserved", "internal", "rounding", "cached", "external", "free"];
const NOBODY = -2, CACHED = -1;
const state = { scene: 0, frame: 0, timer: 0 };

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) { if (key in node && key !== "style") node[key] = value; else node.setAttribute(key, value); }
  node.append(...children);
  return node;
}
const colour = (request) => WHEEL[request % WHEEL.length];

// sequences that are tensors of their own: the new tensor, and below it the old one that is copied into it and freed
function drawTensors(scene, frame) {
  const pool = byId("pool");
  pool.className = "tensors";
  pool.replaceChildren(...frame.tensors.map(({ request, tokens, copied }) => {
    const row = (count, name, fresh) => el("div", { className: name }, ...Array.from({ length: count }, (_, at) => el("i", { className: at >= fresh ? "fresh" : "" })));
    return el("div", { className: "tensor", style: `--owner:${colour(request)}` }, el("small", {}, `request ${request}: ${tokens} tokens${copied ? `, ${copied} of them copied` : ""}`), row(tokens, "new", copied || tokens), ...(copied ? [row(copied, "old", copied)] : []));
  }));
  pool.setAttribute("aria-label", frame.tensors.map(({ request, tokens, copied }) => `request ${request}: tensors of ${tokens} tokens, ${copied} copied`).join("; ") || "empty");
}

function drawPool(scene, frame, before) {
  byId("textures").hidden = Boolean(scene.tensors);
  if (scene.tensors) { drawTensors(scene, frame); return; }
  const pool = byId("pool"), single = scene.block_size === 1;
  pool.className = single ? "slots" : "blocks";
  pool.replaceChildren();
  frame.owner.forEach((owner, at) => {
    const padded = owner >= 0 && !frame.references[at];
    const fill = (slot) => (padded ? "padding" : owner === CACHED ? "cached" : owner === NOBODY ? "" : slot < frame.filled[at] ? "full" : "hollow");
    const style = owner >= 0 ? `--owner:${colour(owner)}` : "";
    const many = frame.references[at] > 1 ? `, shared by ${frame.references[at]} sequences` : "";
    const words = owner === NOBODY ? "free" : owner === CACHED ? "cached" : padded ? `held for request ${owner}, as placement rounds up` : `request ${owner}, ${frame.filled[at]} of ${scene.block_size} slots filled${many}`;
    if (single) {
      const begins = at === 0 || frame.owner[at - 1] !== owner;
      pool.append(el("div", { className: `slot ${fill(0)} ${owner >= 0 ? "held" : ""} ${begins ? "begin" : ""}`, style, title: `slot ${at + 1}: ${words}` }));
      return;
    }
    const changed = before && (before.owner[at] !== owner || before.references[at] !== frame.references[at]);
    const shared = frame.references[at] > 1;
    const block = el("div", { className: `block ${owner >= 0 ? "held" : ""} ${shared ? "shared" : ""} ${changed ? "changed" : ""}`, style: `--size:${scene.block_size};${style}`, title: `block ${at + 1}: ${words}` },
      el("small", {}, el("span", {}, String(at + 1)), el("span", {}, shared ? `×${frame.references[at]}` : owner === CACHED ? "cached" : owner >= 0 ? `r${owner}` : "")));
    for (let slot = 0; slot < scene.block_size; slot += 1) block.append(el("div", { className: `slot ${fill(slot)}` }));
    pool.append(block);
  });
  const free = frame.owner.filter((owner) => owner === NOBODY).length;
  pool.setAttribute("aria-label", `${frame.owner.length} blocks, ${free} free`);
}

function drawLedger(scene, frame) {
  const bar = byId("ledger"), legend = byId("legend");
  bar.replaceChildren();
  legend.replaceChildren();
  for (const name of SHARES) {
    const slots = frame.ledger[name];
    if (!slots) continue;
    bar.append(el("span", { className: `s-${name}`, style: `width:${(100 * slots) / scene.capacity}%` }));
    legend.append(el("li", {}, el("span", { className: `swatch s-${name}` }), `${name} ${slots}`));
  }
}

function drawRequests(frame) {
  const box = byId("requests");
  box.replaceChildren();
  for (const request of frame.requests) {
    const held = request.blocks.length > 12 ? `${request.blocks.length} slots from ${request.blocks[0]}` : request.blocks.join(" ");
    box.append(el("div", { className: `request ${request.state}`, style: `--owner:${colour(request.id)}` }, el("b", {}, `request ${request.id}`), el("span", {}, request.state),
      el("code", {}, held || `${request.prompt} + ${request.output} tokens`)));
  }
}

function draw() {
  const scene = scenes[state.scene], frame = scene.frames[state.frame];
  byId("title").textContent = `${state.scene + 1}. ${scene.title}`;
  byId("text").textContent = scene.text;
  drawPool(scene, frame, scene.frames[state.frame - 1]);
  drawLedger(scene, frame);
  drawRequests(frame);
  byId("shared").hidden = !frame.references.some((references) => references > 1);
  byId("said").replaceChildren(...(frame.said.length ? frame.said : ["Every running sequence writes one more token."]).map((text) => el("li", {}, text)));
  byId("slider").max = scene.frames.length - 1;
  byId("slider").value = state.frame;
  byId("clock").textContent = `${frame.time.toFixed(2)} s, frame ${state.frame + 1} of ${scene.frames.length}`;
  byId("outcome").textContent = scene.outcome;
  byId("back").disabled = byId("first").disabled = state.frame === 0;
  byId("step").disabled = state.frame === scene.frames.length - 1;
  for (const button of document.querySelectorAll("[data-scene]")) button.setAttribute("aria-current", String(Number(button.dataset.scene) === state.scene));
  history.replaceState(null, "", `#s=${state.scene}&f=${state.frame}`);
}

function stop() { clearInterval(state.timer); state.timer = 0; byId("play").textContent = "▶ play"; }
function move(by) {
  const last = scenes[state.scene].frames.length - 1, next = Math.max(0, Math.min(last, state.frame + by));
  if (next === state.frame) stop();
  state.frame = next;
  draw();
}
function play() {
  if (state.timer) { stop(); return; }
  if (state.frame === scenes[state.scene].frames.length - 1) state.frame = 0;
  byId("play").textContent = "❚❚ pause";
  state.timer = setInterval(() => move(1), 1100);
  draw();
}
function show(scene) { stop(); state.scene = scene; state.frame = 0; draw(); }

for (const button of document.querySelectorAll("[data-scene]")) button.addEventListener("click", () => show(Number(button.dataset.scene)));
byId("first").addEventListener("click", () => { stop(); state.frame = 0; draw(); });
byId("back").addEventListener("click", () => { stop(); move(-1); });
byId("step").addEventListener("click", () => { stop(); move(1); });
byId("play").addEventListener("click", play);
byId("slider").addEventListener("input", (event) => { stop(); state.frame = Number(event.target.value); draw(); });
byId("theme").addEventListener("click", theme.turn);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "INPUT") return;
  const acts = { ArrowLeft: () => { stop(); move(-1); }, ArrowRight: () => { stop(); move(1); }, " ": play, t: () => byId("theme").click(), n: () => show((state.scene + 1) % scenes.length) };
  if (event.key === " " && event.target.tagName === "BUTTON") return;
  if (acts[event.key]) { event.preventDefault(); acts[event.key](); }
});

const given = /s=(\d+)&f=(\d+)/.exec(location.hash);
if (given && scenes[given[1]]) { state.scene = Number(given[1]); state.frame = Math.min(Number(given[2]), scenes[state.scene].frames.length - 1); }
draw();
document.documentElement.dataset.complete = "yes";
