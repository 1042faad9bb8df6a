import { element, many, read, show, table } from "../core.js";

export const events = {
  path: "events", title: "Events", inNav: true, name: "events",
  open(root) {
    const inside = element("div");
    const part = element("input", { type: "search", id: "event-part", placeholder: "object, reason, message", oninput: () => draw() });
    root.append(element("h1", {}, "Events"), element("p", {}, element("label", { for: "event-part" }, "Show those with "), part), inside);
    let found;
    function draw() {
      const wanted = part.value.trim().toLowerCase();
      const kept = found.rows.map((_, at) => at).filter((at) => found.rows[at].join(" ").toLowerCase().includes(wanted));
      const some = { columns: found.columns, rows: kept.map((at) => found.rows[at]), objects: kept.map((at) => found.objects[at]) };
      show(inside, some.rows.length ? table(some, "Events, newest first") : element("p", {}, "No events."),
        found.left ? element("p", { class: "soft" }, `${many(found.left, "older event")}: loopscope events`) : "");
    }
    return {
      async look() {
        found = await read("/page/events");
        draw();
      },
    };
  },
};
