// One object: what it waits for, what to do, what it owns, its jobs, events, logs and report.

import { bar, coded, element, linkTo, read, refusalOf, send, show, table, word } from "../core.js";
import { COLUMNS, cellsOf } from "./rows.js";
import { answerOf } from "./study.js";

const REPORT_GAP_MS = 10000;

const WARNINGS = {
  cancel: "Its jobs that run or wait are cancelled. They start again only by retry or an edit.",
  rerun: "The artifacts of this stage and of those after it are set aside and made again.",
};

// Ask before what costs work; resolves with what was chosen, or undefined.
function confirmed(verb, name, stages) {
  return new Promise((done) => {
    const from = element("select", { id: "from" }, stages.map((one) => element("option", { value: one }, one)));
    const dialog = element("dialog", { "aria-labelledby": "asked" },
      element("h2", { id: "asked" }, `${verb[0].toUpperCase()}${verb.slice(1)} ${name}?`), element("p", {}, WARNINGS[verb]),
      verb === "rerun" ? element("p", {}, element("label", { for: "from" }, "Beginning with "), from) : "",
      element("form", { method: "dialog", class: "buttons" }, element("button", { value: "" }, "Leave it"), element("button", { value: "yes", class: "danger" }, `${verb[0].toUpperCase()}${verb.slice(1)}`)));
    dialog.addEventListener("close", () => {
      dialog.remove();
      done(dialog.returnValue === "yes" ? { from: from.value } : undefined);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

function why(said) {
  const steps = said.chain.map((link, at) => element("li", {}, at ? "because " : "", linkTo({ ...link, words: `${link.kind.toLowerCase()}/${link.name}` }), ": ", link.state,
    link.condition ? element("span", { class: "soft" }, ` — ${link.condition.reason}: ${link.condition.message}`) : "",
    link.changed.length ? element("span", { class: "soft" }, ` · changed: ${link.changed.join("; ")}`) : ""));
  const who = said.who === "nobody" ? "" : ` (${said.who})`;
  return [element("p", { class: said.who === "you" ? "notice bad" : "notice" }, element("strong", {}, `Next${who}: `), coded(said.next)),
    said.chain.length > 1 || said.chain[0]?.changed.length ? element("details", {}, element("summary", {}, "Why"), element("ul", {}, steps)) : ""];
}

export const object = {
  path: "object", title: "Object", inNav: false, name: "object",
  open(root, [kind, namespace, name], { about, say }) {
    const path = `${kind}/${namespace}/${name}`;
    const key = { kind, namespace, name };
    const [head, actions, stages, report, body, logs] = [0, 0, 0, 0, 0, 0].map(() => element("div"));
    root.append(head, actions, stages, report, body, logs);
    let node;

    async function act(verb) {
      const chosen = verb in WARNINGS ? await confirmed(verb, name, about.stages) : {};
      if (!chosen) return;
      try {
        say((await send("/page/actions", { verb, ...key, ...chosen })).lines);
      } catch (error) {
        say([error.message], "bad");
      }
    }

    function buttons() {
      if (!about.writable) return element("p", { class: "soft" }, "This server only reads: loopscope serve --write lets the page pause, retry and cancel.");
      const verbs = [node.paused ? ["resume", "Resume"] : ["pause", "Suspend"], ["retry", "Retry"], ["cancel", "Cancel…"]];
      const isOne = kind === "Experiment" && !node.sweep;
      if (isOne) verbs.push(["rerun", "Make again…"]);
      return element("div", { class: "buttons" }, verbs.map(([verb, text]) => element("button", { type: "button", onclick: () => act(verb), "data-verb": verb }, text)),
        isOne ? element("a", { href: `#/ask/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}` }, "Ask the model") : "");
    }

    // -- logs: read while they are open
    const text = element("pre", { tabindex: "0", "aria-label": "Log lines" });
    const note = element("p", { class: "soft" });
    const opened = element("details", { ontoggle: () => opened.open && readLogs() }, element("summary", {}, "Logs"), note, text);
    logs.append(opened);
    async function readLogs() {
      const found = await read(`/page/logs/${path}`);
      const atEnd = text.scrollTop + text.clientHeight >= text.scrollHeight - 8;
      text.textContent = found.lines.join("\n");
      note.textContent = found.lines.length ? `The last ${found.lines.length} lines; all of them: loopscope logs ${kind.toLowerCase()} ${name}`
        : `Nothing was written about it; worker logs: ${found.folder}`;
      if (atEnd) text.scrollTop = text.scrollHeight;
    }

    // -- the report: a frame of an origin of its own, loaded again when it would be another
    let loaded, loadedAt = 0, isMaking = false;
    const frame = element("iframe", { title: `Report of ${name}`, sandbox: "allow-scripts allow-downloads allow-popups" });
    const making = element("span", { class: "soft", role: "status" });
    frame.addEventListener("load", () => (making.textContent = ""));
    const alone = element("a", { target: "_blank", rel: "noreferrer" }, "Open it in a tab of its own");
    const embedded = element("details", { ontoggle: () => (loaded = undefined) }, element("summary", {}, "Report"), element("p", {}, alone, " ", making), frame);
    async function embed(found) {
      if (!found) return;
      if (!embedded.isConnected) {
        embedded.open = kind === "Experiment" && node.word === "Ready" && !node.sweep;
        report.append(embedded);
      }
      alone.href = found.address;
      if (isMaking || !embedded.open || loaded === found.version || Date.now() - loadedAt < (loaded ? REPORT_GAP_MS : 0)) return;
      isMaking = true;
      making.textContent = "Making the report …";
      try { // first whether it can be made: a frame would show the refusal, and for good
        const answer = await fetch(found.address, { method: "HEAD", cache: "no-store" });
        if (!answer.ok) throw await refusalOf(await fetch(found.address, { cache: "no-store" }));
        [loaded, loadedAt] = [found.version, Date.now()];
        frame.src = found.address;
      } catch (error) {
        making.textContent = error.code ? `No report: ${error.message}` : "No report: the server does not answer, trying again";
      } finally {
        isMaking = false;
      }
    }

    return {
      async look(events) {
        const found = await read(`/page/objects/${path}`);
        node = found.node;
        show(head,
          element("p", { class: "soft" }, element("a", { href: "#/" }, "Experiments"), ` / ${found.node.words}`),
          element("h1", {}, name, " ", word(node.word), node.pausedBy ? [" ", word("paused")] : ""),
          node.message && node.word !== "Ready" ? element("p", {}, element("strong", {}, node.reason), `: ${node.message}`) : "",
          found.whole ? element("p", {}, bar(found.share, `${name}: done`), " ", found.whole) : "",
          node.pausedBy ? element("p", { class: "notice" }, `Paused by ${node.pausedBy}: no job of it starts. What runs goes on.`) : "",
          why(found.why));
        if (actions.dataset.paused !== String(node.paused)) {
          actions.dataset.paused = String(node.paused);
          actions.replaceChildren(buttons());
        }
        const owned = found.owned.map((one) => element("tr", {}, cellsOf(one, 0, undefined, name)));
        show(stages,
          kind === "Study" ? answerOf(await read(`/page/studies/${namespace}/${name}`))
            : owned.length ? [element("h2", {}, node.sweep ? "Cells" : "Stages"), node.sweep ? element("p", {}, element("a", { href: `#/sweep/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}` }, "As a grid that can be sorted and narrowed")) : "",
            element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "What it owns" }, element("table", { class: "tree" },
              element("thead", {}, element("tr", {}, COLUMNS.map((one) => element("th", { scope: "col" }, one)))), element("tbody", {}, owned)))]
            : element("p", { class: "facts" }, cellsOf(node, 0)[2].childNodes.length ? [...cellsOf(node, 0)[2].childNodes] : ""));
        show(body,
          element("h2", {}, "Conditions"), found.conditions.rows.length ? table(found.conditions, "Conditions") : element("p", {}, "None yet."),
          element("h2", {}, "Jobs"), found.jobs.rows.length ? table(found.jobs, "Jobs, newest first", { tall: true }) : element("p", {}, "None yet."),
          element("h2", {}, "Events"), found.events.rows.length ? table(found.events, "Events, newest first", { tall: true }) : element("p", {}, "None yet."));
        if (opened.open && events.some((one) => one.type !== "time")) await readLogs();
        embed(found.report);
      },
    };
  },
};
