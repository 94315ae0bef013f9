// What a token costs: every shipped model, filtered and ordered as the reader likes.
const models = JSON.parse(document.getElementById("models").textContent);
const LENGTHS = [1024, 2048, 8192, 32768, 131072];
const view = { device: "h100-80gb", length: 2048, format: "own" };
const many = (value) => value.toLocaleString("en-US");
const kib = (value) => { const size = value / 1024; return size >= 100 ? Math.round(size).toLocaleString("en-US") : String(Number(size.toPrecision(3))); };
const gib = (value) => (value / 2 ** 30).toFixed(value < 10 * 2 ** 30 ? 1 : 0);

function drawModels() {
  const body = byId("model-rows"), own = new Map();
  for (const row of models) if (!own.has(row.model)) own.set(row.model, row);
  const rows = view.format === "own" ? [...own.values()] : models.filter((row) => row.kv_dtype === "fp8");
  rows.sort((one, other) => one.bytes_per_token - other.bytes_per_token);
  const most = Math.max(...models.map((row) => row.bytes_per_token));
  body.replaceChildren(...rows.map((row) => {
    const tokens = row.tokens[view.device], batch = view.length > row.max_model_len ? `context ${many(row.max_model_len)}` : many(Math.floor(tokens / view.length));
    const bar = el("div", { className: "scale" }, el("i", { style: `width:${(100 * row.bytes_per_token) / most}%` }));
    const none = `${gib(row.weight_bytes)} GiB of weights do not fit`;
    return el("tr", {}, el("th", { scope: "row" }, el("span", { className: "name" }, row.model), el("small", {}, `${row.attention}, K/V in ${row.kv_dtype}`)),
      el("td", { className: "scaled" }, bar), el("td", { className: "n" }, kib(row.bytes_per_token)),
      ...(tokens ? [el("td", { className: "n" }, many(tokens)), el("td", { className: "n" }, batch)] : [el("td", { className: "none", colSpan: 2 }, none)]));
  }));
  const labels = ["", "", "KiB a token", "tokens that fit", "batch that fits"];
  for (const cell of body.querySelectorAll("td.n")) cell.setAttribute("data-head", labels[cell.cellIndex]);
}

function choice(id, values, name, words) {
  const box = byId(id);
  for (const value of values) box.append(el("option", { value: String(value) }, words(value)));
  box.value = String(view[name]);
  box.addEventListener("change", () => { view[name] = name === "length" ? Number(box.value) : box.value; drawModels(); });
}
choice("device", Object.keys(models[0].tokens), "device", (value) => value);
choice("length", LENGTHS, "length", (value) => `${many(value)} tokens`);
choice("format", ["own", "fp8"], "format", (value) => (value === "own" ? "of the model" : "fp8"));
drawModels();
