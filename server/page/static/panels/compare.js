// Two experiments side by side: what `loopscope compare` says, with whole values one click away.

import { element, linkTo, read, query } from "../core.js";
import { offered } from "./names.js";

const SHORT = 80;
const SIDES = { coarse: "Anchors", fine: "Children" };

function cell(value) {
  if (value === null || value === undefined) return element("td", { class: "soft" }, "–");
  if (typeof value === "number") return element("td", {}, Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4))));
  const whole = typeof value === "string" ? value : JSON.stringify(value);
  if (whole.length <= SHORT) return element("td", { class: "value" }, whole);
  const begins = Array.isArray(value) ? `${value.length} items, first ${value[0]}` : whole;
  const lines = Array.isArray(value) ? value.map((one) => (typeof one === "string" ? one : JSON.stringify(one))).join("\n") : whole;
  return element("td", { class: "value" }, element("details", {},
    element("summary", {}, begins.length > SHORT ? `${begins.slice(0, SHORT)} …` : begins), element("pre", {}, lines)));
}

function sideBySide(title, head, rows, nothing) {
  return [element("h2", {}, title), rows.length
    ? element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, element("table", {},
      element("thead", {}, element("tr", {}, head.map((one) => element("th", { scope: "col" }, one)))),
      element("tbody", {}, rows.map((row) => element("tr", { class: row.differs ? "differs" : "" }, element("th", { scope: "row" }, row.name), row.cells.map(cell))))))
    : element("p", {}, nothing)];
}

const changes = (list) => list.filter((one) => one.first !== null || one.second !== null)
  .map((one) => ({ name: one.field, differs: JSON.stringify(one.first) !== JSON.stringify(one.second), cells: [one.first, one.second] }));

function latents(one, names) {
  const title = SIDES[one.side];
  const known = one.matchedBy !== "not matched", alone = (which) => (known ? `only in the ${which}` : "not matched");
  const rows = [
    ...one.matches.map((match) => ({ name: match.second === null ? alone("first") : "matched", differs: match.second === null, cells: [match.first, match.second, match.cosine] })),
    ...one.onlySecond.map((latent) => ({ name: alone("second"), differs: true, cells: [null, latent, null] })),
  ];
  return [...sideBySide(title, ["what", ...names, "cosine"], rows, "None."),
    element("p", { class: "soft" }, `${known ? `Matched by ${one.matchedBy}.` : `Not matched: ${one.note}.`}${one.directionCosine === null ? "" : ` The steered directions have cosine ${one.directionCosine.toFixed(3)}.`}`)];
}

export const compare = {
  path: "compare", title: "Compare", inNav: true, name: "compare",
  open(root, [namespace = "default", a = "", b = ""]) {
    const result = element("div", { role: "status" });
    const names = element("datalist", { id: "names" });
    const field = (id, value) => element("input", { id, list: "names", value, required: true, autocomplete: "off" });
    const [first, second, place] = [field("first", a), field("second", b), element("input", { id: "place", value: namespace })];
    root.append(element("h1", {}, "Compare"),
      element("form", { class: "bar", onsubmit: (event) => {
        event.preventDefault();
        const words = [place.value.trim() || "default", first.value.trim(), second.value.trim()];
        location.hash = `#/compare/${words.map(encodeURIComponent).join("/")}`;
      } }, element("label", { for: "first" }, "Experiment"), first, element("label", { for: "second" }, "with"), second,
        element("label", { for: "place", class: "soft" }, "Namespace"), place, element("button", {}, "Compare"), names), result);
    const offer = offered(names);
    let done = false;
    return {
      async look(events) {
        await offer(place.value.trim() || "default", events);
        if (!a || !b || (done && !events.some((one) => one.type === "objects" || one.type === "all"))) return;
        if (!done) result.replaceChildren(element("p", {}, "Reading the artifacts of both …"));
        const found = await read(`/page/compare${query({ namespace, a, b })}`);
        done = true;
        const key = (one) => ({ kind: "Experiment", namespace, name: one });
        result.replaceChildren(
          element("p", {}, linkTo(key(a), a), " beside ", linkTo(key(b), b)),
          ...sideBySide("Verdict", ["what", a, b], changes(found.verdict), "Neither has a verdict yet."),
          ...sideBySide("Texts with a word of the lexicon, by arm", ["what", a, b], changes(found.arms), "Neither has steered yet."),
          ...sideBySide("Gate", ["what", a, b], changes(found.mapping), "Neither has a gate yet."),
          ...found.latents.flatMap((one) => latents(one, [a, b])),
          ...sideBySide("Spec: what differs", ["what", a, b], changes(found.spec), "The two specs are the same."),
          ...(found.problems.length ? [element("h2", {}, "Not there"), element("ul", {}, found.problems.map((one) => element("li", {}, `${one.experiment}: ${one.problem}`)))] : []));
      },
    };
  },
};
