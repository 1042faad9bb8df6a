// What a study says of all its concepts: how far it is, its answer, the picture, the table.

import { element, linkTo, many, word } from "../core.js";

const NUMBERS = new Set(["estimate", "interval", "drawn to the mean"]);
const WORDS = new Set(["state"]);

const base64 = (text) => btoa(Array.from(new TextEncoder().encode(text), (one) => String.fromCharCode(one)).join(""));

function concepts({ columns, rows, objects }) {
  const cell = (text, at, about) => {
    if (at === 0) return element("th", { scope: "row" }, about ? linkTo(about, text) : text);
    return element("td", { class: NUMBERS.has(columns[at]) ? "n" : "" }, WORDS.has(columns[at]) ? word(text) : text);
  };
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Concepts" }, element("table", {},
    element("thead", {}, element("tr", {}, columns.map((one) => element("th", { scope: "col", class: NUMBERS.has(one) ? "n" : "" }, one)))),
    element("tbody", {}, rows.map((cells, row) => element("tr", {}, cells.map((text, at) => cell(text, at, objects[row])))))));
}

export function answerOf(found) {
  const [answer, ...sentences] = found.sentences;
  return [
    element("p", { class: "lede" }, `${found.ready} of ${many(found.concepts, "concept")} Ready, ${found.testable} testable, the gate open in ${found.openGates}.`),
    element("h2", {}, "Answer"),
    element("p", { class: found.answer ? "lede" : "notice" }, answer),
    element("ul", { class: "lines" }, sentences.map((one) => element("li", {}, one))),
    found.picture ? element("img", { class: "figure", src: `data:image/svg+xml;base64,${base64(found.picture)}`,
      alt: "Each concept's difference with its interval, by family, and the mean; the numbers stand in the table below" }) : "",
    element("h2", {}, "Concepts"), concepts(found.table),
    found.untested.length ? [element("h3", {}, "Why not testable"), element("ul", { class: "lines" }, found.untested.map(([name, reason]) => element("li", {}, `${name}: ${reason}`)))] : "",
  ];
}
