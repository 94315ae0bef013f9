// Tables in the order of any column: by a click on its head ascending, again descending, again as they came.
function sortable(table) {
  const body = table.tBodies[0], came = [...body.rows], heads = [...table.tHead.rows[0].cells];
  const value = (row, at) => {
    const text = row.cells[at].textContent.trim(), number = /^[-+]?\d[\d,]*\.?\d*(e[-+]\d+)?/.exec(text);
    return number ? Number(number[0].replaceAll(",", "")) : text;
  };
  const none = (one) => one === "-" || one === "";
  const before = (one, other) => (typeof one === "number" && typeof other === "number" ? one - other : String(one).localeCompare(String(other)));
  heads.forEach((head, at) => {
    if (came.length < 2 || !head.textContent.trim() || head.classList.contains("wide")) return;
    head.classList.add("sorts");
    head.tabIndex = 0;
    if (!head.title) head.title = "put the rows in the order of this column";
    const turn = () => {
      const next = { ascending: "descending", descending: null }[head.getAttribute("aria-sort")];
      const order = next === undefined ? "ascending" : next;
      for (const other of heads) other.removeAttribute("aria-sort");
      if (order) head.setAttribute("aria-sort", order);
      const sign = order === "descending" ? -1 : 1;
      const rows = order ? [...came].sort((one, other) => {
        const [mine, theirs] = [value(one, at), value(other, at)];
        return none(mine) || none(theirs) ? none(mine) - none(theirs) : sign * before(mine, theirs); // what is not known stays last
      }) : came;
      body.append(...rows);
    };
    head.addEventListener("click", turn);
    head.addEventListener("keydown", (event) => { if (event.key === "Enter") turn(); });
  });
}
document.querySelectorAll("table.glance").forEach((table) => { if (table.tHead) sortable(table); });
