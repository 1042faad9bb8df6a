
// One opening, all arms beside one another; and texts rated by somebody who does not see the arm.
// What was said is saved as a file: `loopscope rate import` takes it in and computes agreement.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("explore-data").textContent).rating;
  const samples = document.getElementById("samples");
  if (!data || !samples || !samples.querySelector("tr[data-arm]")) return;
  const button = (text, act) => {
    const made = make("button", text, { type: "button" });
    made.addEventListener("click", act);
    return made;
  };
  const openings = [...samples.querySelectorAll("details[data-opening]")];

  // --- the theatre: columns, one strength, next tokens ---
  const box = samples.querySelector("fieldset.arms");
  const beside = make("input", undefined, { type: "checkbox" }), label = make("label");
  beside.addEventListener("change", () => samples.classList.toggle("columns", beside.checked));
  label.append(beside, " in columns");
  const strengths = [...new Set([...samples.querySelectorAll("tr[data-strength]")].map((row) => row.dataset.strength))];
  const only = make("select", undefined, { "aria-label": "Show one strength" });
  only.add(new Option("all strengths", ""));
  for (const one of strengths) if (Number(one) > 0) only.add(new Option(`strength ${one}`, one));
  only.addEventListener("change", () => {
    for (const row of samples.querySelectorAll("tr[data-strength]")) {
      const { strength } = row.dataset;
      row.classList.toggle("other", Boolean(only.value) && Number(strength) > 0 && strength !== only.value);
    }
  });
  box.append(label, " ", only);
  const shiftTable = (arms) => {
    const table = make("table"), head = make("tr");
    table.append(make("caption", "Likeliest next tokens after the opening, each arm at its weakest strength: probability unsteered, then under the arm"));
    for (const word of ["arm", "strength", "next tokens"]) head.append(make("th", word, { scope: "col" }));
    table.append(head);
    for (const [arm, [strength, ...tokens]] of Object.entries(arms)) {
      const row = make("tr");
      row.append(make("th", arm, { scope: "row" }), make("td", String(strength)),
        make("td", tokens.map(([text, before, after]) => `${JSON.stringify(text)} ${before} \u2192 ${after}`).join("; ")));
      table.append(row);
    }
    return table;
  };
  for (const opening of openings) {
    const arms = data.shifts[opening.dataset.opening];
    if (!arms) continue;
    let table = null;
    const toggle = button("Next tokens", () => {
      if (!table) toggle.after(table = shiftTable(arms));
      else table.hidden = !table.hidden;
      toggle.setAttribute("aria-expanded", String(!table.hidden));
    });
    toggle.setAttribute("aria-expanded", "false");
    opening.querySelector("summary").after(toggle);
  }

  // --- blind rating ---
  const texts = openings.flatMap((opening) =>
    [...opening.querySelectorAll("tr[data-arm]")].map((row) => ({
      prompt_id: opening.dataset.opening,
      arm: row.dataset.arm,
      strength: Number(row.dataset.strength),
      sample: Number(row.dataset.sample),
      opening: opening.querySelector("summary strong").textContent,
      text: row.querySelector("td.long").textContent,
    })));
  const shuffled = (items, seed) => {  // mulberry32 and Fisher-Yates: the same seed, the same order
    let state = seed >>> 0;
    const next = () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let mixed = Math.imul(state ^ (state >>> 15), state | 1);
      mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
    };
    const order = [...items];
    for (let last = order.length - 1; last > 0; last--) {
      const other = Math.floor(next() * (last + 1));
      [order[last], order[other]] = [order[other], order[last]];
    }
    return order;
  };
  const save = (name, text, type) => {
    const link = make("a", undefined, { download: name, href: URL.createObjectURL(new Blob([text], { type })) });
    link.click();
    URL.revokeObjectURL(link.href);
  };
  const cell = (value) => `"${String(value).replaceAll('"', '""')}"`;
  const rowsOf = (said) => said.map(({ text, rating }) =>
    ({ prompt_id: text.prompt_id, arm: text.arm, strength: text.strength, sample: text.sample, rating }));
  const documentOf = (rater, seed, said) => ({
    format: data.format, experiment: data.experiment, steering: data.steering, rater,
    date: new Date().toISOString(), seed, ratings: rowsOf(said),
  });
  const csvOf = ({ ratings, ...common }) => {
    const head = [...Object.keys(common), ...Object.keys(ratings[0])];
    return [head, ...ratings.map((row) => [...Object.values(common), ...Object.values(row)])]
      .map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
  };

  const stage = make("section", undefined, { id: "blind", "aria-labelledby": "blind-title", hidden: "" });
  document.querySelector("main").append(stage);
  const begin = (rater, count) => {
    const seed = crypto.getRandomValues(new Uint32Array(1))[0];
    const order = shuffled(texts, seed).slice(0, count);
    const said = [];
    const where = make("p", "", { class: "soft", "aria-live": "polite" });
    const opening = make("p", "", { class: "soft" }), text = make("p", "", { class: "text", tabindex: "-1" });
    const show = () => {
      if (said.length === order.length) { end(); return; }
      const one = order[said.length];
      where.textContent = `Text ${said.length + 1} of ${order.length}`;
      opening.textContent = `After: ${one.opening}`;
      text.textContent = one.text;
    };
    const rate = (rating) => { said.push({ text: order[said.length], rating }); show(); };
    const back = () => { if (said.length) { said.pop(); show(); } };
    const keys = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "1" || event.key === "y") rate(1);
      else if (event.key === "0" || event.key === "n") rate(0);
      else if (event.key === "ArrowLeft") back();
      else return;
      event.preventDefault();
    };
    const leave = () => {
      document.removeEventListener("keydown", keys);
      document.body.classList.remove("blind");
      stage.hidden = true;
      samples.scrollIntoView();
    };
    const end = () => {
      document.removeEventListener("keydown", keys);
      if (!said.length) { leave(); return; }
      const saved = documentOf(rater, seed, said);
      const name = `${data.experiment}-ratings`;
      const arms = new Map();
      for (const { text: { arm }, rating } of said) {
        const [yes, all] = arms.get(arm) || [0, 0];
        arms.set(arm, [yes + rating, all + 1]);
      }
      const list = make("ul");
      for (const [arm, [yes, all]] of arms) list.append(make("li", `${arm}: ${yes} of ${all} about the concept`));
      const title = make("h2", "Rated", { id: "blind-title", tabindex: "-1" });
      stage.replaceChildren(title,
        make("p", `${said.length} texts, in the order of the seed ${seed}. Save them, then: loopscope rate import ${name}.json`),
        button("Save as JSON", () => save(`${name}.json`, JSON.stringify(saved, null, 1), "application/json")),
        button("Save as CSV", () => save(`${name}.csv`, csvOf(saved), "text/csv")),
        button("Close", leave), make("h3", "What the arms were"), list);
      title.focus();
    };
    stage.replaceChildren(make("h2", "Is the text about the concept?", { id: "blind-title" }), where, opening, text,
      button("Yes (1)", () => rate(1)), button("No (0)", () => rate(0)), button("Back (\u2190)", back), button("Stop here", end));
    stage.hidden = false;
    document.body.classList.add("blind");
    document.addEventListener("keydown", keys);
    show();
    text.focus();
  };
  const form = make("form", undefined, { class: "rate" });
  const who = make("input", undefined, { required: "", maxlength: "100", "aria-label": "Your name", placeholder: "Your name" });
  const count = make("input", undefined, { type: "number", min: "1", max: String(texts.length), value: String(Math.min(60, texts.length)), "aria-label": "How many texts" });
  form.append(who, " ", count, " ", make("button", "Rate blind", { type: "submit" }));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    begin(who.value.trim() || "anonymous", Math.max(1, Math.min(texts.length, Number(count.value) || 1)));
  });
  box.after(form);
})();
