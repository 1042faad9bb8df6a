// A sweep as a grid: sort by any column, narrow by the values of the axes, and brush a number.

import { element, linkTo, read, table, word } from "../core.js";

const NUMBERS = { estimate: "estimate", percentile: "percentile", p: "p" };
const WORDS = new Set(["state"]);
const [WIDTH, HEIGHT, EDGE] = [640, 54, 14];

const svg = (tag, given) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(given)) made.setAttribute(name, String(value));
  return made;
};

// A chain of dictionaries: what becomes of latents from one to the next.
function chainOf({ words, table: fates, missing }) {
  return [element("h2", {}, `Resolution: ${words}`), fates.rows.length ? table(fates, "Fates") : "",
    element("ul", { class: "lines" }, missing.map((one) => element("li", {}, one))),
    element("p", { class: "soft" }, "The graph of all levels, and steering at each, stand in the sweep's report.")];
}

export const sweep = {
  path: "sweep", title: "Sweep", inNav: false, name: "sweep",
  open(root, [namespace, name]) {
    let found, order, kept = new Map(), range = [-Infinity, Infinity], number = "estimate";
    const key = { kind: "Experiment", namespace, name };
    const [head, controls, strip, said, grid, sentences, chains] = [0, 0, 0, 0, 0, 0, 0].map(() => element("div"));
    said.setAttribute("role", "status");
    root.append(element("p", { class: "soft" }, element("a", { href: "#/" }, "Experiments"), " / ", linkTo(key, name)), element("h1", {}, name), head, controls, strip, said, grid, sentences, chains);

    const value = (at, column) => {
      const cell = found.document.cells[at];
      return column in NUMBERS ? cell[NUMBERS[column]] : found.rows[at][found.columns.indexOf(column)];
    };
    const shown = (at) => {
      if ([...kept].some(([axis, wanted]) => wanted && value(at, axis) !== wanted)) return false;
      if (range[0] === -Infinity && range[1] === Infinity) return true;
      const one = value(at, number);
      return one !== null && one >= range[0] && one <= range[1];
    };
    const ends = () => {
      const known = found.rows.map((_, at) => value(at, number)).filter((one) => one !== null);
      return known.length ? [Math.min(...known), Math.max(...known)] : undefined;
    };

    function sorted() {
      const places = found.rows.map((_, at) => at);
      if (!order) return places;
      const [column, way] = order;
      return places.sort((a, b) => {
        const [one, two] = [value(a, column), value(b, column)];
        const [none, nothing] = [one === null || one === "–", two === null || two === "–"];
        if (none || nothing) return none - nothing || a - b;
        return way * (typeof one === "number" ? one - two : String(one).localeCompare(String(two), "en")) || a - b;
      });
    }

    function drawGrid() {
      const focused = document.activeElement?.dataset?.column;
      const places = sorted().filter(shown);
      said.textContent = `${places.length} of ${found.rows.length} cells shown`;
      const columns = [...found.columns];
      const heads = columns.map((column) => {
        const way = order?.[0] === column ? (order[1] === 1 ? "ascending" : "descending") : undefined;
        return element("th", { scope: "col", "aria-sort": way }, element("button", { type: "button", class: "sort", "data-column": column, onclick: () => {
          order = [column, order?.[0] === column ? -order[1] : 1];
          drawGrid();
        } }, column, way ? (way === "ascending" ? " ↑" : " ↓") : ""));
      });
      const rows = places.map((at) => element("tr", {},
        element("th", { scope: "row" }, linkTo(found.objects[at], found.objects[at].name)),
        columns.map((column, place) => {
          const text = found.rows[at][place];
          return element("td", { class: column in NUMBERS ? "n" : "" }, WORDS.has(column) ? word(text) : text);
        })));
      grid.replaceChildren(element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Cells" },
        element("table", {}, element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "cell"), heads)), element("tbody", {}, rows))));
      if (focused) grid.querySelector(`[data-column="${CSS.escape(focused)}"]`)?.focus();
      for (const dot of strip.querySelectorAll("circle")) dot.classList.toggle("out", !shown(Number(dot.dataset.at)));
    }

    function drawControls() {
      const lists = found.axes.map((axis) => {
        const values = [...new Set(found.rows.map((_, at) => value(at, axis)))].sort();
        const list = element("select", { id: `axis-${axis}`, onchange: () => {
          kept.set(axis, list.value);
          drawGrid();
        } }, element("option", { value: "" }, "all"), values.map((one) => element("option", { value: one, selected: kept.get(axis) === one }, one)));
        return [element("label", { for: `axis-${axis}` }, axis), list];
      });
      const which = element("select", { id: "number", onchange: () => {
        number = which.value;
        range = [-Infinity, Infinity];
        drawControls();
        drawGrid();
      } }, Object.keys(NUMBERS).map((one) => element("option", { value: one, selected: one === number }, one)));
      const end = (at, label) => {
        const box = element("input", { type: "number", step: "any", id: `brush-${at}`, value: Number.isFinite(range[at]) ? String(range[at]) : "", onchange: () => {
          range[at] = box.value === "" ? (at ? Infinity : -Infinity) : Number(box.value);
          drawStrip();
          drawGrid();
        } });
        return [element("label", { for: `brush-${at}` }, label), box];
      };
      controls.replaceChildren(element("div", { class: "bar" }, lists.flat(), element("label", { for: "number" }, "with"), which, end(0, "from"), end(1, "to"),
        element("button", { type: "button", onclick: () => {
          kept = new Map();
          range = [-Infinity, Infinity];
          drawControls();
          drawGrid();
        } }, "Show all")));
      drawStrip();
    }

    // One dot a cell; a range drawn over them keeps what lies in it. The two fields do the same.
    function drawStrip() {
      const between = ends();
      if (!between) return strip.replaceChildren(element("p", { class: "soft" }, `No cell has a number for ${number} yet.`));
      const [low, high] = between[0] === between[1] ? [between[0] - 1, between[1] + 1] : between;
      const x = (one) => EDGE + ((one - low) / (high - low)) * (WIDTH - 2 * EDGE);
      const back = (place) => low + ((place - EDGE) / (WIDTH - 2 * EDGE)) * (high - low);
      const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "strip", role: "img", "aria-label": `${number} of the cells, from ${low.toPrecision(3)} to ${high.toPrecision(3)}` });
      picture.append(svg("line", { x1: EDGE, x2: WIDTH - EDGE, y1: 30, y2: 30, class: "axis" }));
      const brush = svg("rect", { y: 6, height: 36, class: "brush" });
      const setBrush = (from, to) => {
        brush.setAttribute("x", String(Math.min(from, to)));
        brush.setAttribute("width", String(Math.abs(to - from)));
      };
      if (Number.isFinite(range[0]) || Number.isFinite(range[1])) setBrush(x(Math.max(low, range[0])), x(Math.min(high, range[1])));
      picture.append(brush);
      found.rows.forEach((_, at) => {
        const one = value(at, number);
        if (one === null) return;
        const dot = svg("circle", { cx: x(one), cy: 30, r: 5, "data-at": at });
        const title = svg("title", {});
        title.textContent = `${found.objects[at].name}: ${one}`;
        dot.append(title);
        picture.append(dot);
      });
      for (const [one, anchor] of [[low, "start"], [high, "end"]]) {
        const text = svg("text", { x: x(one), y: HEIGHT - 1, "text-anchor": anchor });
        text.textContent = String(Number(one.toPrecision(3)));
        picture.append(text);
      }
      let from;
      const at = (event) => ((event.clientX - picture.getBoundingClientRect().left) / picture.getBoundingClientRect().width) * WIDTH;
      picture.addEventListener("pointerdown", (event) => {
        from = at(event);
        picture.setPointerCapture(event.pointerId);
      });
      picture.addEventListener("pointermove", (event) => from !== undefined && setBrush(from, at(event)));
      picture.addEventListener("pointerup", (event) => {
        const to = at(event);
        range = Math.abs(to - from) < 4 ? [-Infinity, Infinity] : [Math.min(from, to), Math.max(from, to)].map((one) => Number(back(one).toPrecision(4)));
        from = undefined;
        drawControls();
        drawGrid();
      });
      strip.replaceChildren(picture);
    }

    return {
      async look(events) {
        if (found && !events.some((one) => one.type === "all" || one.changed?.some((other) => other.kind === "Experiment"))) return;
        const fresh = await read(`/page/sweeps/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`);
        if (JSON.stringify(fresh) === JSON.stringify(found)) return;
        found = fresh;
        const sets = Object.entries(found.document.axes).map(([axis, values]) => element("li", {}, element("strong", {}, axis), ": ",
          Object.entries(values).map(([one, fields]) => `${one} (${Object.entries(fields).map(([field, text]) => `${field} ${text}`).join(", ") || "as the sweep has it"})`).join(" · ")));
        head.replaceChildren(element("p", { class: "lede" }, `${found.ready} of ${found.rows.length} cells Ready.`), element("ul", { class: "lines" }, sets));
        sentences.replaceChildren(element("ul", { class: "lines" }, found.document.sentences.map((one) => element("li", {}, one))));
        chains.replaceChildren(...found.chains.flatMap(chainOf));
        drawControls();
        drawGrid();
      },
    };
  },
};
