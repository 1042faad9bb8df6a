// The page: which panel is shown, what it is told, and what is said at the top.

import { Refusal, element, forsake, read, token } from "./core.js";
import { PANELS } from "./panels.js";
import { Stream } from "./stream.js";

const [main, nav, said, connection] = ["main", "nav", "said", "connection"].map((id) => document.getElementById(id));
const [GAP_MS, GAP_MS_MAX, ECHO_MS, AGAIN_MS] = [250, 1000, 500, 2000];

// One panel is open at a time. It is asked to look again when something changed: never twice at
// once, and with a pause that grows with what a look takes, up to a second. A commit of which no
// more is known waits: mostly it is the one that changed the objects that were just read, and what
// changes next goes first. A look that failed is made again, at everything: what it was told is
// told no second time.
class Shown {
  constructor(panel, words, about) {
    this.root = element("div", { class: panel.name });
    this.wanted = [];
    this.busy = false;
    this.closed = false;
    const everything = () => this.look({ type: "all" });
    this.panel = panel.open(this.root, words, { about, say, everything });
    main.replaceChildren(this.root);
    this.look({ type: "all" });
  }

  async look(event) {
    if (document.hidden) return; // it looks at everything once it is seen again
    this.wanted.push(event);
    if (event.type !== "commit") this.hurry?.();
    if (this.busy) return;
    this.busy = true;
    while (this.wanted.length && !this.closed) {
      if (this.wanted.every((one) => one.type === "commit")) {
        await new Promise((done) => {
          this.hurry = done;
          setTimeout(done, ECHO_MS);
        });
      }
      const events = this.wanted.splice(0);
      const began = performance.now();
      let pause;
      try {
        await this.panel.look(events);
        this.root.querySelector(":scope > .trouble")?.remove();
        pause = Math.min(GAP_MS_MAX, Math.max(GAP_MS, 2 * (performance.now() - began)));
      } catch (error) {
        if (!this.closed) this.trouble(error);
        if (!(error instanceof Refusal) || error.mayPass) this.wanted.unshift({ type: "all" });
        pause = error.name === "AbortError" ? GAP_MS : AGAIN_MS;
      }
      await new Promise((done) => setTimeout(done, pause));
    }
    this.busy = false;
  }

  trouble(error) {
    if (error instanceof Refusal && error.code === 401) return ask(error.message);
    if (!(error instanceof Refusal)) return; // no answer: the stream says that the connection is lost
    this.root.querySelector(":scope > .trouble")?.remove();
    this.root.prepend(element("p", { class: "trouble notice bad" }, error.message));
  }

  close() {
    this.closed = true;
    this.panel.close?.();
  }
}

export function say(lines, tone = "plain") {
  const close = element("button", { type: "button", onclick: () => said.replaceChildren() }, "Dismiss");
  said.replaceChildren(element("div", { class: `notice ${tone}` },
    element("ul", {}, lines.map((line) => element("li", {}, line))), close));
}

function ask(why) {
  const input = element("input", { type: "password", id: "token", autocomplete: "off", required: true, size: "48" });
  const form = element("form", { class: "ask", onsubmit: (event) => {
    event.preventDefault();
    token.set(input.value.trim());
    location.reload();
  } },
    element("h1", {}, "The token of this server"),
    element("p", {}, "Open the address that loopscope serve printed, or paste the token; it lies in the state folder, in server/token."),
    element("label", { for: "token" }, "Token "), input, " ", element("button", {}, "Open"),
    element("p", { class: "soft" }, why));
  shown?.close();
  shown = undefined;
  main.replaceChildren(form);
}

let shown;
let about;

function route() {
  const [name = "", ...words] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  const panel = PANELS.find((one) => one.path === name) ?? PANELS[0];
  for (const link of nav.children) {
    if (link.dataset.path === panel.path) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  shown?.close();
  document.title = `${[panel.title, ...words.slice(-1)].join(" ")} · Loopscope`;
  shown = new Shown(panel, words, about);
  window.scrollTo(0, 0);
}

async function begin() {
  token.take();
  try {
    about = await read("/page/about");
  } catch (error) {
    connection.textContent = "";
    if (error.code === 401) return ask(token.get() ? error.message : "");
    connection.textContent = "the server does not answer, trying again";
    return void setTimeout(begin, 1000);
  }
  document.getElementById("folder").textContent = about.folder;
  document.getElementById("mode").textContent = about.writable ? "" : "read-only";
  for (const one of PANELS.filter((panel) => panel.inNav)) {
    nav.append(element("a", { href: `#/${one.path}`, "data-path": one.path }, one.title));
  }
  window.addEventListener("hashchange", route);
  document.addEventListener("visibilitychange", () => shown?.look({ type: "all" }));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
    const filter = main.querySelector("input[type=search]");
    if (filter) {
      event.preventDefault();
      filter.focus();
    }
  });
  new Stream(
    (state, words) => {
      // what was asked while a connection was lost may wait for its answer for ever
      if (connection.dataset.state && state !== connection.dataset.state) forsake();
      connection.dataset.state = state;
      connection.textContent = words;
      if (state === "refused") ask(words);
    },
    (event) => shown?.look(event),
  ).begin();
  setInterval(() => shown?.look({ type: "time" }), 5000);
  route();
}

begin();
