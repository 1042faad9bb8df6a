// What all panels share: elements without markup, requests with the token, words for times, tables.
// Nothing is ever parsed as HTML: texts are set as text, so a hostile name is only a text.

export function element(tag, given = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "class") made.className = value;
    else if (name in made && typeof value !== "string") made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...inside.flat(Infinity).filter((one) => one !== undefined && one !== null && one !== ""));
  return made;
}

// What stands between backticks in a text of the server is for typing.
export const coded = (text) => text.split("`").map((part, place) => (place % 2 ? element("code", {}, part) : part));

export class Refusal extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }

  // Whether the same may be answered at another time.
  get mayPass() {
    return this.code >= 500 || this.code === 429;
  }
}

// -- requests ---------------------------------------------------------------------------------

const TOKEN = "loopscope-token";

export const token = {
  // It comes in the part of the address that no request bears, and stays in this tab alone.
  take() {
    const given = /^#token=([\w-]+)$/.exec(location.hash);
    if (!given) return;
    sessionStorage.setItem(TOKEN, given[1]);
    history.replaceState(null, "", "#/");
  },
  get: () => sessionStorage.getItem(TOKEN) ?? "",
  set: (text) => sessionStorage.setItem(TOKEN, text),
};

export function headers(more = {}) {
  return { Authorization: `Bearer ${token.get()}`, ...more };
}

export async function refusalOf(response) {
  let message = `${response.status} ${response.statusText}`;
  try {
    message = (await response.json()).message ?? message;
  } catch {
    // not JSON: the status line is all there is
  }
  return new Refusal(response.status, message);
}

let reading = new AbortController();

// Give up what is being read: who reads is told so.
export function forsake() {
  reading.abort();
  reading = new AbortController();
}

export async function read(path) {
  const response = await fetch(path, { headers: headers(), signal: reading.signal, cache: "no-store" });
  if (!response.ok) throw await refusalOf(response);
  return response.json();
}

export async function send(path, body) {
  const given = headers({ "Content-Type": "application/json", "X-Loopscope-Page": "1" });
  const response = await fetch(path, { method: "POST", headers: given, body: JSON.stringify(body) }).catch(() => {
    throw new Error("The server did not answer: once it is back, look whether it was done before you ask again.");
  });
  if (!response.ok) throw await refusalOf(response);
  return response.json();
}

export function query(words) {
  const made = new URLSearchParams();
  for (const [name, value] of Object.entries(words)) {
    for (const one of [value].flat()) if (one !== undefined && one !== "") made.append(name, one);
  }
  const text = made.toString();
  return text ? `?${text}` : "";
}

// -- words ------------------------------------------------------------------------------------

// The same words as `age` in views/numbers.py; a test compares the two.
export function age(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [minute, hour, day] = [60, 3600, 86400];
  const year = 365 * day;
  const steps = [
    [2 * minute, 1, "s", 0, ""],
    [10 * minute, minute, "m", 1, "s"],
    [3 * hour, minute, "m", 0, ""],
    [8 * hour, hour, "h", minute, "m"],
    [2 * day, hour, "h", 0, ""],
    [8 * day, day, "d", hour, "h"],
    [2 * year, day, "d", 0, ""],
    [8 * year, year, "y", day, "d"],
  ];
  for (const [limit, big, bigUnit, little, littleUnit] of steps) {
    if (whole >= limit) continue;
    const rest = little ? Math.floor((whole % big) / little) : 0;
    return `${Math.floor(whole / big)}${bigUnit}${rest ? `${rest}${littleUnit}` : ""}`;
  }
  return `${Math.floor(whole / year)}y`;
}

export const since = (at) => age(Date.now() / 1000 - at);
export const clock = (date) => date.toLocaleTimeString("en-GB");
export const many = (number, one, others = `${one}s`) =>
  `${number.toLocaleString("en")} ${number === 1 ? one : others}`;

const TONES = {
  Ready: "good", succeeded: "good", GO: "good", True: "good",
  Running: "busy", running: "busy",
  Stalled: "bad", failed: "bad", ArtifactDamaged: "bad", Warning: "bad",
  Retrying: "unsure", Reconciling: "unsure", Queued: "unsure", pending: "unsure",
  Suspended: "held", cancelled: "held", Outdated: "held", Blinded: "held",
};

export function word(text) {
  return element("span", { class: `word ${TONES[text] ?? "plain"}` }, text);
}

export function bar(share, name) {
  if (share === undefined || share === null) return "";
  const part = Math.min(1, Math.max(0, share));
  return element("progress", { max: 1, value: part, "aria-label": name });
}

// -- objects and tables -----------------------------------------------------------------------

export const place = (one) => `#/object/${[one.kind, one.namespace, one.name].map(encodeURIComponent).join("/")}`;

export function linkTo(one, text) {
  return element("a", { href: place(one) }, text ?? one.words);
}

const WORDY = new Set(["STATE"]);
const LONG = new Set(["DETAIL", "MESSAGE"]);
const COUNTED = new Set(["ID", "COUNT"]);

// A table as Python made it: columns, rows of texts, and the object of each row.
export function table(document_, caption, { tall = false } = {}) {
  const shown = document_.columns.map((name, at) => [name, at]);
  const head = element("tr", {}, shown.map(([name]) => element("th", { scope: "col", class: COUNTED.has(name) ? "n" : null }, name)));
  const rows = document_.rows.map((cells, at) => {
    const about = document_.objects?.[at];
    return element("tr", {}, shown.map(([name, place_]) => {
      const text = cells[place_];
      if (name === "OBJECT" && about) return element("td", { class: "name" }, linkTo(about, text));
      if (WORDY.has(name) || text === "Warning") return element("td", {}, word(text));
      return element("td", { class: LONG.has(name) ? "long" : COUNTED.has(name) ? "n" : "" }, text);
    }));
  });
  return element("div", { class: tall ? "scroll tall" : "scroll", tabindex: "0", role: "region", "aria-label": caption },
    element("table", {}, element("thead", {}, head), element("tbody", {}, rows)));
}

// Put new content in the place of the old one, if it is another; what has the focus keeps it.
export function show(root, ...inside) {
  const fresh = element("div", {}, ...inside);
  if (root.shown?.isEqualNode(fresh)) return;
  root.shown = fresh.cloneNode(true);
  const focused = root.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  const places = [...root.querySelectorAll(".scroll")].map((one) => [one.getAttribute("aria-label"), one.scrollLeft]);
  root.replaceChildren(...fresh.childNodes);
  for (const [name, left] of places) {
    const again = [...root.querySelectorAll(".scroll")].find((one) => one.getAttribute("aria-label") === name);
    if (again) again.scrollLeft = left;
  }
  if (focused) [...root.querySelectorAll("a")].find((one) => one.getAttribute("href") === focused)?.focus();
}
