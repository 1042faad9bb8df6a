// The tree: pages of objects without an owner; what one owns is read when it is opened. A change
// reads again the rows that it concerns, and no others.

import { element, many, query, read, since } from "../core.js";
import { COLUMNS, cellsOf } from "./rows.js";

const FIRST_PAGE = 60;
const PAGE = 200;
const AGAIN_MAX = 150;

export class Tree {
  // `everything()` asks for a look at everything.
  constructor(root, everything) {
    this.everything = everything;
    this.rows = new Map(); // uid -> {node, row, depth, open, children}
    this.part = "";
    this.asked = new Set(); // of what a person asked for, and what changed meanwhile
    this.turn = 0;
    this.next = "";
    this.body = element("tbody");
    this.count = element("p", { class: "soft", role: "status" });
    this.more = element("button", { type: "button", hidden: true, onclick: () => this.between(() => this.page()) }, "Show more");
    const filter = element("input", { type: "search", id: "part", placeholder: "part of a name  ( / )", oninput: () => this.filter(filter.value) });
    root.append(
      element("div", { class: "bar" }, element("h2", {}, "Experiments"), element("label", { for: "part", class: "soft" }, "Name "), filter, this.count),
      element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Experiments and what they own" },
        element("table", { class: "tree" },
          element("thead", {}, element("tr", {}, COLUMNS.map((name) => element("th", { scope: "col" }, name)))), this.body)),
      this.more);
    new IntersectionObserver((seen) => {
      if (seen.some((one) => one.isIntersecting) && !this.more.hidden) this.between(() => this.page());
    }, { rootMargin: "600px" }).observe(this.more);
  }

  filter(text) {
    this.part = text.trim();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.between(() => this.begin()), 150);
  }

  // Do what a person asked for, while looks go on. What it reads may come behind a change of which
  // it knows nothing: what it shows of what changed meanwhile is read again.
  async between(what) {
    const told = new Set();
    this.asked.add(told);
    try {
      await what();
      await this.again([...told]);
    } catch {
      this.everything(); // no answer: it is looked at with all else, once there is one
    } finally {
      this.asked.delete(told);
    }
  }

  async begin() {
    const turn = ++this.turn;
    const asked = this.part;
    const found = await this.first(asked, this.named === asked ? this.roots().length : 0);
    if (turn !== this.turn) return; // it was asked for again meanwhile
    this.named = asked;
    const open = [...this.rows.values()].filter((one) => one.open).map((one) => one.node.uid);
    const before = this.rows;
    this.rows = new Map();
    this.counted = found.counted;
    const fresh = found.nodes.map((node) => this.add(node, 0, before.get(node.uid)));
    const focused = this.body.contains(document.activeElement) ? document.activeElement : null;
    const [held, tag] = [focused?.closest("tr").dataset.uid, focused?.tagName];
    this.body.replaceChildren(...fresh.map((one) => one.row));
    this.after(found);
    for (const uid of open) if (this.rows.has(uid)) await this.open(this.rows.get(uid));
    // a row that moves loses the focus, also where it comes back to the same place
    if (focused && document.activeElement === document.body) this.rows.get(held)?.row.querySelector(tag)?.focus({ preventScroll: true });
  }

  // The first page, and as many more as were shown.
  async first(name, shown) {
    const found = await read(`/page/tree${query({ limit: String(FIRST_PAGE), name })}`);
    while (found.continue && found.nodes.length < shown) {
      const more = await read(`/page/tree${query({ limit: String(PAGE), name, continue: found.continue })}`);
      found.nodes.push(...more.nodes);
      found.continue = more.continue;
    }
    return found;
  }

  async page() {
    if (this.paging || !this.next) return;
    const turn = this.turn;
    this.paging = true;
    try {
      const found = await read(`/page/tree${query({ limit: String(PAGE), name: this.part, continue: this.next })}`);
      if (turn === this.turn) { // else it continues what is shown no more
        this.body.append(...found.nodes.filter((node) => !this.rows.has(node.uid)).map((node) => this.add(node, 0).row));
        this.after(found);
      }
    } finally {
      this.paging = false;
    }
    if (turn !== this.turn) await this.page();
  }

  roots() {
    return [...this.rows.values()].filter((one) => one.depth === 0);
  }

  after(found) {
    this.next = found.continue;
    this.more.hidden = !this.next;
    const all = this.counted ? Object.values(this.counted).reduce((sum, one) => sum + one, 0) : 0;
    const experiments = this.counted?.Experiment ?? 0;
    const roots = this.roots().length;
    this.count.textContent = !roots ? (this.part ? "no object has such a name" : "nothing was applied yet: loopscope apply -f FILE")
      : `${roots.toLocaleString("en")} shown${this.next ? ", more below" : ""} · ${many(experiments, "experiment")}, ${many(all, "object")} in all`;
  }

  add(node, depth, before, owner) {
    const one = { node: undefined, row: before?.row ?? element("tr"), depth, owner, open: false, children: [] };
    one.text = before?.text;
    this.rows.set(node.uid, one);
    this.draw(one, node);
    return one;
  }

  draw(one, node) {
    one.node = node;
    const { created, ...rest } = node;
    const text = JSON.stringify([rest, one.open]);
    if (one.text === text) return;
    one.text = text;
    const focused = one.row.contains(document.activeElement) ? document.activeElement.tagName : null;
    const opener = node.owns ? element("button", {
      type: "button", class: "opener", "aria-expanded": String(one.open), "aria-label": `What ${node.name} owns`,
      onclick: () => (one.open ? this.close(one) : this.between(() => this.open(one))),
    }, one.open ? "▾" : "▸") : undefined;
    one.row.replaceChildren(...cellsOf(node, one.depth, opener, one.owner));
    one.row.dataset.uid = node.uid;
    if (focused) one.row.querySelector(focused)?.focus();
  }

  async open(one) {
    const found = await read(`/page/tree/owned${query({ uid: one.node.uid })}`);
    const known = new Map(one.children.map((uid) => [uid, this.rows.get(uid)]));
    one.open = true;
    const uids = new Set(found.nodes.map((node) => node.uid));
    for (const uid of one.children) if (!uids.has(uid)) this.remove(uid);
    let last = one;
    for (const node of found.nodes) {
      const child = known.get(node.uid) ?? this.add(node, one.depth + 1, undefined, one.node.name);
      this.draw(child, node);
      if (!child.row.isConnected) this.end(last).after(child.row);
      last = child;
    }
    one.children = found.nodes.map((node) => node.uid);
    this.draw(one, one.node);
  }

  // The last row of what an object shows below itself.
  end(one) {
    const last = one.open ? this.rows.get(one.children.at(-1)) : undefined;
    return last?.row.isConnected ? this.end(last) : one.row;
  }

  close(one) {
    for (const uid of one.children) this.remove(uid);
    one.children = [];
    one.open = false;
    this.draw(one, one.node);
  }

  remove(uid) {
    const one = this.rows.get(uid);
    if (!one) return;
    for (const child of one.children) this.remove(child);
    one.row.remove();
    this.rows.delete(uid);
  }

  async look(events) {
    if (!this.begun || events.some((one) => one.type === "all")) {
      this.begun = true;
      return this.begin();
    }
    const changed = events.filter((one) => one.type === "objects").flatMap((one) => one.changed);
    for (const one of changed) if (one.type === "DELETED") this.remove(one.uid);
    const isNew = changed.some((one) => one.type === "ADDED" && !one.owner && !this.rows.has(one.uid));
    const told = changed.flatMap((one) => [one.uid, one.owner]);
    for (const one of this.asked) told.forEach((uid) => one.add(uid));
    if (isNew) return this.begin();
    await this.again(told);
    for (const cell of this.body.querySelectorAll("[data-created]")) cell.textContent = since(Number(cell.dataset.created));
  }

  // Read again what is shown of some objects.
  async again(uids) {
    const concerned = new Set(uids.filter((uid) => this.rows.has(uid)));
    if (concerned.size > AGAIN_MAX) return this.begin();
    if (concerned.size) {
      const found = await read(`/page/tree/nodes${query({ uid: [...concerned] })}`);
      const there = new Map(found.nodes.map((node) => [node.uid, node]));
      for (const uid of concerned) {
        const [one, node] = [this.rows.get(uid), there.get(uid)];
        if (!node) this.remove(uid);
        else if (one?.depth === 0) this.draw(one, node);
      }
    }
    // stages have their progress from what owns them
    const working = [...this.rows.values()].filter((one) => one.open && (
      concerned.has(one.node.uid) || one.node.word === "Reconciling"));
    for (const one of working) if (this.rows.get(one.node.uid) === one) await this.open(one);
  }
}
