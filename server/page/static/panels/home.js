// The home: what needs a human, what runs, and the tree.

import { bar, coded, element, linkTo, many, read, show } from "../core.js";
import { Tree } from "./tree.js";

function stuck(one) {
  return element("li", { class: "notice bad" },
    element("p", {}, linkTo(one.object), ` stands still for ${one.for}: `, element("strong", {}, one.reason)),
    element("p", { class: "why" }, one.message),
    element("p", {}, element("span", { class: "soft" }, "What to do: "), coded(one.next)));
}

function running(one) {
  const time = one.left && !one.detail.includes(" left") ? ` · about ${one.left} left` : "";
  return element("li", {},
    linkTo(one.object), " ", bar(one.share ?? 0, `${one.object.words}: done`), " ",
    element("span", {}, one.detail, time), element("span", { class: "soft" }, ` · job ${one.job}, for ${one.runs}`));
}

function inShort(found) {
  const words = Object.entries(found.experiments).map(([word, number]) => `${number.toLocaleString("en")} ${word}`);
  const total = Object.values(found.experiments).reduce((sum, one) => sum + one, 0);
  const waits = [
    `${many(found.running.length, "job")} run${found.running.length === 1 ? "s" : ""}`,
    found.pending ? `${found.pending} wait${found.pending === 1 ? "s" : ""} in the queue` : "",
    found.waiting ? `${many(found.waiting, "object")} wait${found.waiting === 1 ? "s" : ""} for others` : "",
  ].filter(Boolean);
  return `${many(total, "experiment")}${words.length ? `: ${words.join(", ")}` : ""}. ${waits.join(", ")}.`;
}

export const home = {
  path: "", title: "Experiments", inNav: true, name: "home",
  open(root, words, { everything }) {
    const top = element("section", { class: "now" });
    const below = element("section");
    root.append(top, below);
    const tree = new Tree(below, everything);
    let seen;
    async function now() {
      const found = await read("/page/now");
      seen = found;
      // its last line says that no controller runs: nothing of what is left to do happens by itself
      const idle = !found.controlled && (found.pending > 0 || found.waiting > 0 || found.experiments.Reconciling > 0);
      show(top,
        element("h1", {}, "Now"),
        element("p", { class: "lede" }, inShort(found)),
        idle ? element("p", { class: "notice bad" }, found.lines.at(-1)) : "",
        element("ul", { class: "lines" }, (idle ? found.lines.slice(0, -1) : found.lines).map((line) => element("li", {}, line))),
        found.stuck ? [element("h2", {}, "Needs you"), element("ul", { class: "cards" }, found.attention.map(stuck)),
          found.stuck > found.attention.length ? element("p", { class: "soft" }, `and ${found.stuck - found.attention.length} more`) : ""] : "",
        found.running.length ? [element("h2", {}, "Running"), element("ul", { class: "running" }, found.running.map(running))] : "");
    }
    return {
      async look(events) {
        const onlyTime = events.every((one) => one.type === "time");
        if (!onlyTime || seen?.running.length || seen?.pending) {
          await Promise.all([tree.look(events), now()]);
        } else await tree.look(events);
      },
    };
  },
};
