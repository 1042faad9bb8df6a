// Sorting and narrowing a grid of cells. Every number was printed by Python; rows are moved and hidden.
(() => {
  "use strict";
  const table = document.getElementById("grid"), body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells], said = document.getElementById("grid-said");
  const key = (row, place) => row.cells[place].dataset.sort ?? row.cells[place].textContent.trim();
  const before = (one, two) => {
    const numbers = [Number(one), Number(two)];
    if (one === "" || two === "") return (one === "") - (two === "");
    return numbers.some(Number.isNaN) ? one.localeCompare(two, "en") : numbers[0] - numbers[1];
  };
  const sort = (place) => {
    const falling = heads[place].getAttribute("aria-sort") === "ascending";
    for (const head of heads) head.removeAttribute("aria-sort");
    heads[place].setAttribute("aria-sort", falling ? "descending" : "ascending");
    const rows = [...body.rows].sort((one, two) => {
      const a = key(one, place), b = key(two, place);
      return falling && a !== "" && b !== "" ? before(b, a) : before(a, b);
    });
    body.append(...rows);
  };
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sort(place));
    head.replaceChildren(button);
  });
  const kept = new Map();
  const narrow = () => {
    let shown = 0;
    for (const row of body.rows) {
      row.hidden = [...kept].some(([place, value]) => value && key(row, place) !== value);
      shown += row.hidden ? 0 : 1;
    }
    said.textContent = `${shown} of ${body.rows.length} cells shown`;
  };
  const line = document.createElement("p");
  line.className = "slider";
  heads.forEach((head, place) => {
    if (!("axis" in head.dataset)) return;
    const label = document.createElement("label"), list = document.createElement("select");
    list.add(new Option("all", ""));
    for (const value of [...new Set([...body.rows].map((row) => key(row, place)))].sort()) list.add(new Option(value, value));
    list.addEventListener("change", () => { kept.set(place, list.value); narrow(); });
    label.append(`${head.dataset.axis} `, list, " ");
    line.append(label);
  });
  said.before(line);
  narrow();
})();
