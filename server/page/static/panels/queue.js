import { element, many, query, read, show, table } from "../core.js";

export const queue = {
  path: "queue", title: "Queue", inNav: true, name: "queue",
  open(root) {
    const all = element("input", { type: "checkbox", id: "ended", onchange: () => look() });
    const inside = element("div");
    root.append(element("h1", {}, "Queue"),
      element("p", {}, all, " ", element("label", { for: "ended" }, "Ended jobs, too")), inside);
    async function look() {
      const found = await read(`/page/queue${query({ all: all.checked ? "1" : "" })}`);
      const nothing = all.checked ? "No jobs." : "No jobs run or wait.";
      show(inside, element("ul", { class: "lines" }, found.lines.map((line) => element("li", {}, line))),
        found.rows.length ? table(found, "Jobs") : element("p", {}, nothing),
        found.left ? element("p", { class: "soft" }, `${many(found.left, "more row")}: loopscope queue`) : "");
    }
    return { look };
  },
};
