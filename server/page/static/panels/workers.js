import { element, read, show, table } from "../core.js";

export const workers = {
  path: "workers", title: "Workers", inNav: true, name: "workers",
  open(root) {
    const inside = element("div");
    root.append(element("h1", {}, "Workers"), inside);
    return {
      async look() {
        const found = await read("/page/workers");
        show(inside, found.rows.length ? table(found, "Workers")
          : element("p", {}, "No workers. A controller starts them when there is work: loopscope controller"));
      },
    };
  },
};
