// Rows of the tree: an object with its word and why, and what is known of it by now.

import { bar, element, linkTo, since, word } from "../core.js";

const ANSWERS = ["GATE", "VERDICT"];
const NOTHING = new Set(["", "-", "READY"]);
export const COLUMNS = ["NAME", "STATUS", "WHAT IS KNOWN", "AGE"];

function chips(node) {
  const { cells } = node;
  const stages = cells.filter(([name, text]) => name !== "READY" && !ANSWERS.includes(name) && text !== "-");
  const answers = cells.filter(([name, text]) => ANSWERS.includes(name) && text !== "-");
  const words = answers.map(([name, text]) =>
    element("span", { class: "fact" }, element("span", { class: "soft" }, `${name.toLowerCase()} `), element("strong", {}, text)));
  const list = stages.map(([name, text]) => element("li", {}, element("span", { class: "soft" }, name.toLowerCase()), " ", word(text)));
  const done = stages.length && stages.every(([, text]) => text === "Ready");
  return [done ? "" : element("ul", { class: "stages" }, list), words.length ? element("p", { class: "answers" }, words) : ""];
}

function facts(cells) {
  return cells.filter(([name, text]) => name !== "READY" && !NOTHING.has(text)).map(([name, text]) =>
    element("span", { class: "fact" }, element("span", { class: "soft" }, `${name.toLowerCase()} `), text));
}

function status(node) {
  const why = node.word === "Running" && node.detail ? node.detail
    : node.message ? `${node.reason ? `${node.reason}: ` : ""}${node.message}` : "";
  const left = node.left && node.word !== "Ready" && !why.includes(" left") ? `about ${node.left} left` : "";
  return [
    word(node.word), node.pausedBy ? [" ", word("paused")] : "",
    node.share !== undefined && node.share !== null && node.share > 0 && node.word !== "Ready" ? [" ", bar(node.share, `${node.name}: done`)] : "",
    node.word === "Ready" && node.reason !== "RulesChanged" ? "" : element("p", { class: "why" }, why, left ? ` · ${left}` : ""),
    node.current ? "" : element("p", { class: "why" }, "The newest spec was not looked at yet."),
  ];
}

// `opener` is the button that opens what the object owns, where there is one; `owner` is the name of
// the object above, which the names of what it owns begin with.
export function cellsOf(node, depth, opener, owner) {
  const isExperiment = node.kind === "Experiment";
  const text = owner && node.name.startsWith(`${owner}-`) ? node.name.slice(owner.length + 1) : isExperiment ? node.name : node.words;
  const name = element("td", { class: `name depth-${Math.min(depth, 3)}` },
    opener ?? element("span", { class: "no-opener" }), linkTo(node, node.namespace === "default" || !isExperiment || owner ? text : `${node.namespace}/${text}`));
  const best = node.cells.find(([column, value]) => column === "BEST" && value !== "-");
  const known = node.sweep
    ? element("td", {}, element("span", { class: "fact" }, element("span", { class: "soft" }, "ready "), node.cells.find(([one]) => one === "READY")?.[1] ?? ""),
      best ? element("span", { class: "fact" }, element("span", { class: "soft" }, "best "), best[1]) : "")
    : isExperiment ? element("td", {}, chips(node)) : element("td", {}, facts(node.cells));
  return [name, element("td", { class: "status", "data-generation": String(node.generation) }, status(node)), known, element("td", { class: "n age", "data-created": String(node.created) }, since(node.created))];
}
