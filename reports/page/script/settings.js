// Sliders of the gate. Python asked the gate's rule at every combination; here it is looked up.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("explore-data").textContent).gateSettings;
  const place = document.getElementById("gate-settings");
  if (!data || !place) return;
  const box = make("fieldset", undefined, { class: "settings" });
  box.append(make("legend", "Another setting"));
  const sliders = [];
  const add = (field, part, labels, declared, value) => {
    const line = make("p", undefined, { class: "slider" }), label = make("label", `${field} `);
    const slider = make("input", undefined, { type: "range", min: 0, max: labels.length - 1, step: 1 });
    const shown = make("output");
    slider.value = declared;
    slider.addEventListener("input", tell);
    label.append(slider, " ", shown);
    line.append(label);
    box.append(line);
    sliders.push({ field, part, slider, shown, labels, declared, value });
  };
  const most = Math.max(...data.at.flat().map(([low]) => low), data.count);
  const counts = Array.from({ length: most }, (_, at) => at + 1);
  const answer = make("p", undefined, { "aria-live": "polite", class: "answered" });
  const lines = make("pre", undefined, { tabindex: 0, "aria-label": "Lines of the spec" });
  const reset = make("button", "as declared", { type: "button" });
  function tell() {
    const at = sliders.map(({ slider }) => Number(slider.value));
    let row = 0;
    data.axes.forEach((axis, n) => { row = row * axis.values.length + (axis.values.length > 1 ? at[places[n]] : 0); });
    const count = counts[at[0]], ranges = data.at[row];
    const [, , verdict, note, anchor, children] = ranges.find(([, high]) => count <= high) || ranges.at(-1);
    const changed = sliders.filter((one, n) => at[n] !== one.declared);
    sliders.forEach((one, n) => {
      one.shown.textContent = `${one.labels[at[n]]}${at[n] === one.declared ? " (declared)" : ""}`;
      one.slider.setAttribute("aria-valuetext", one.shown.textContent);
    });
    const steered = anchor === null ? "nothing to steer" : `steered C-${anchor} with ${children} ${children === 1 ? "child" : "children"}`;
    const why = data.notes[note];
    answer.textContent = `${changed.length ? "Then" : "As declared"}: ${verdict}; ${steered}${why ? `; ${why}` : ""}.`;
    answer.classList.toggle("other-run", Boolean(why));
    for (const one of document.querySelectorAll("[data-verdict-of='steering']")) one.classList.toggle("other-run", Boolean(why));
    lines.hidden = !changed.length;
    const parts = new Map();
    for (const one of changed) parts.set(one.part, [...(parts.get(one.part) || []), `${one.field}: ${one.value(at[sliders.indexOf(one)])}`]);
    lines.textContent = [...parts].map(([part, fields]) => `${part}: {${fields.join(", ")}}`).join("\n");
  }
  const places = [];
  add("minSubfeatures", "gate", counts.map(String), data.count - 1, (at) => counts[at]);
  for (const axis of data.axes) {
    places.push(sliders.length);
    if (axis.values.length > 1) add(axis.field, axis.part, axis.values.map(String), axis.declared, (at) => axis.values[at]);
  }
  reset.addEventListener("click", () => {
    for (const one of sliders) one.slider.value = one.declared;
    tell();
  });
  box.append(answer, lines, reset);
  place.append(box);
  tell();
})();
