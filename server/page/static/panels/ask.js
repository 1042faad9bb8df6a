// Ask the model: which latents fire on a text, or how it goes on under an arm. What `loopscope ask`
// does: a question goes through the queue, and the same one again is answered from what is there.

import { element, linkTo, read, send } from "../core.js";
import { offered } from "./names.js";

const SHADES = 5;

function coloured(tokens, found) {
  const largest = Math.max(...found);
  return element("p", { class: "tokens" }, tokens.map(({ text }, at) => found[at] > 0
    ? element("span", { class: `fire${Math.min(SHADES, 1 + Math.floor((SHADES * found[at]) / largest))}`, title: found[at].toPrecision(3) }, text)
    : text));
}

function latents(answer) {
  const fires = answer.latents.filter((one) => one.activations.some((value) => value > 0));
  const silent = answer.latents.filter((one) => !fires.includes(one)).map((one) => `${one.side}/${one.latent}`);
  const strongest = ({ activations }) => activations.map((value, at) => [value, answer.tokens[at].text.trim()])
    .filter(([value]) => value > 0).sort((a, b) => b[0] - a[0]).slice(0, 4).map(([value, text]) => `${text} ${value.toPrecision(3)}`).join(", ");
  return [...fires.map((one) => element("section", { class: "latent" },
    element("h2", {}, `${one.side}/${one.latent}`), coloured(answer.tokens, one.activations), element("p", { class: "soft" }, strongest(one)))),
  silent.length ? element("p", { class: "soft" }, `Silent on this text: ${silent.join(", ")}`) : ""];
}

function marked({ text, concept }) {
  const parts = [];
  let done = 0;
  for (const [start, end] of concept) {
    parts.push(text.slice(done, start), element("mark", {}, text.slice(start, end)));
    done = end;
  }
  return [...parts, text.slice(done)];
}

function texts(answer) {
  return element("div", { class: "beside" }, answer.texts.map((one) => element("section", {},
    element("h2", {}, one.strength ? `${one.arm} at ${one.strength}` : one.arm === "none" ? "unsteered" : one.arm),
    element("p", { class: "tokens" }, element("span", { class: "soft" }, answer.text), marked(one)))));
}

export const ask = {
  path: "ask", title: "Ask", inNav: true, name: "ask",
  open(root, [namespace = "default", name = ""], { about, say }) {
    root.append(element("h1", {}, "Ask the model"));
    if (!about.writable) {
      root.append(element("p", { class: "notice" }, "This server only reads: loopscope serve --write lets the page ask."));
      return { look: async () => undefined };
    }
    const names = element("datalist", { id: "names" });
    const experiment = element("input", { id: "experiment", list: "names", value: name, required: true, autocomplete: "off" });
    const text = element("textarea", { id: "text", rows: "4", maxlength: "2000", required: true });
    const what = element("select", { id: "what" }, element("option", { value: "" }, "which latents fire, token by token"));
    const strength = element("select", { id: "strength", disabled: true });
    const result = element("div", { role: "status" });
    const offer = offered(names);
    let may, asked, busy = false;

    const fillStrengths = () => {
      const known = may?.arms[what.value] ?? [];
      strength.replaceChildren(...known.map((one) => element("option", { value: String(one) }, `${one} ${may.strengthUnit}`)));
      strength.disabled = known.length === 0;
    };
    what.addEventListener("change", fillStrengths);
    async function learn() {
      if (!experiment.value.trim() || may?.name === experiment.value.trim()) return;
      const wanted = experiment.value.trim();
      try {
        may = { name: wanted, ...await read(`/page/questions/${encodeURIComponent(namespace)}/${encodeURIComponent(wanted)}`) };
        what.replaceChildren(what.firstChild, ...Object.keys(may.arms).map((arm) => element("option", { value: arm }, `how it goes on: ${arm}`)));
        fillStrengths();
      } catch (error) {
        say([error.message], "bad");
      }
    }
    experiment.addEventListener("change", learn);
    async function answer() {
      if (!asked || busy) return;
      busy = true;
      const mine = asked;
      try {
        const found = await send("/page/questions", mine);
        if (mine !== asked) return;
        const about_ = { kind: "Question", namespace, name: found.name };
        if (found.problem) {
          result.replaceChildren(element("p", {}, "In the queue: ", linkTo(about_, found.name), ` (${found.problem})`));
          return;
        }
        asked = undefined;
        result.replaceChildren(element("p", { class: "soft" }, linkTo(about_, found.name)), ...[found.latents ? latents(found) : texts(found)].flat());
      } catch (error) {
        asked = undefined;
        result.replaceChildren(element("p", { class: "notice bad" }, error.message));
      } finally {
        busy = false;
      }
    }
    root.append(element("form", { onsubmit: (event) => {
      event.preventDefault();
      asked = { namespace, experiment: experiment.value.trim(), text: text.value };
      if (what.value) Object.assign(asked, { arm: what.value }, strength.value ? { strength: Number(strength.value) } : {});
      result.replaceChildren(element("p", {}, "Asking …"));
      answer();
    } },
      element("p", {}, element("label", { for: "experiment" }, "Experiment "), experiment, names),
      element("p", {}, element("label", { for: "text" }, "Text, or the opening of one"), element("br"), text),
      element("p", {}, element("label", { for: "what" }, "Ask "), what, " ", element("label", { for: "strength" }, "at "), strength),
      element("button", {}, "Ask")), result);
    return {
      async look(events) {
        await offer(namespace, events);
        await learn();
        await answer();
      },
    };
  },
};
