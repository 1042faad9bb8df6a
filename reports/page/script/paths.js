// Texts on their way through the plane: which ones, how far, with or without what their arm adds.
// Python printed every coordinate; here they are placed on the axes that Python drew.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("explore-data").textContent).paths;
  const place = document.getElementById("paths"), told = document.getElementById("paths-told");
  if (!data || !place) return;
  const pictures = [...document.querySelectorAll("#navigator svg[data-plane]")].map((svg) => {
    const [x, right] = svg.dataset.across.split(" ").map(Number);
    const [y, up] = svg.dataset.up.split(" ").map(Number);
    const at = ([first, second]) => [x + first * (right - x), y + second * (up - y)];
    return { group: svg.querySelector("g.paths"), plane: Number(svg.dataset.plane), at, middle: svg.viewBox.baseVal.width / 2 };
  });
  const arms = [...new Map(data.texts.map((text) => [text.arm, text])).values()];
  const ticked = new Set(arms.map(({ arm }) => arm).filter((arm) => data.first.includes(arm)));
  if (!ticked.size) for (const { arm } of arms) ticked.add(arm);

  const opening = make("select", undefined, { "aria-label": "Opening" });
  for (const [name, text] of data.openings) opening.add(new Option(text || name, name));
  const box = make("fieldset", undefined, { class: "arms" });
  box.append(make("legend", "Paths of the arms"));
  for (const { arm, css } of arms) {
    const label = make("label", undefined, { class: css }), tick = make("input", undefined, { type: "checkbox" });
    tick.checked = ticked.has(arm);
    tick.addEventListener("change", () => { ticked[tick.checked ? "add" : "delete"](arm); renew(); });
    label.append(tick, " ", make("span", undefined, { class: "swatch" }), arm);
    box.append(label);
  }
  const without = make("input", undefined, { type: "checkbox" });
  const steps = make("input", undefined, { type: "range", min: 0, step: 1, "aria-label": "Step" });
  const where = make("output");
  const button = (text, act) => {
    const made = make("button", text, { type: "button" });
    made.addEventListener("click", act);
    return made;
  };

  const shown = () => data.texts.filter((text) => text.opening === opening.value && ticked.has(text.arm));
  const svg = (tag, attributes, title) => {
    const element = document.createElementNS(pictures[0].group.namespaceURI, tag);
    for (const name in attributes) element.setAttribute(name, attributes[name]);
    if (title !== undefined) element.append(svg("title", {}));
    if (title !== undefined) element.firstChild.textContent = title;
    return element;
  };
  const short = (value) => String(Math.round(value * 100) / 100);
  const path = ({ arm, css, tokens, steered, before, behind }, { plane, at, middle }, last, taken) => {
    const places = (without.checked ? before : behind)[plane].slice(0, last + 1).map(at);
    const made = [svg("polyline", { points: places.map((one) => one.map(short).join(",")).join(" "), class: `path-line ${css}` })];
    places.forEach(([x, y], step) => made.push(svg("circle",
      { cx: short(x), cy: short(y), r: step === last ? 5 : 3, class: `dot ${css}`, "data-step": step },
      `${arm}, step ${step}${steered[step] ? ", steered" : ""}: ${tokens[step]}`)));
    const [x, foot] = places.at(-1), left = x > middle;
    let y = foot - 5;  // a name stands below those that are written already
    while (taken.some(([other, low]) => Math.abs(x - other) < 80 && Math.abs(y - low) < 13)) y += 1;
    taken.push([x, y]);
    const name = svg("text", { x: short(x + (left ? -6 : 6)), y: short(y), class: `label strong ${css}`, "text-anchor": left ? "end" : "start" });
    name.textContent = arm;
    return [...made, name];
  };
  const words = ({ arm, css, tokens, steered }, last) => {
    const term = make("dt", undefined, { class: css }), text = make("dd");
    term.append(make("span", undefined, { class: "swatch" }), arm);
    tokens.slice(0, last + 1).forEach((token, step) => {
      const piece = make(steered[step] ? "i" : "span", token);
      if (step === last) piece.classList.add("now");
      text.append(piece);
    });
    return [term, text];
  };
  const draw = () => {
    const texts = shown(), step = Number(steps.value);
    const end = (text) => Math.min(step, text.tokens.length - 1);
    for (const picture of pictures) {
      const taken = [];
      picture.group.replaceChildren(...texts.flatMap((text) => path(text, picture, end(text), taken)));
    }
    told.replaceChildren(...texts.flatMap((text) => words(text, end(text))));
    where.textContent = `step ${step} of ${steps.max}`;
    steps.setAttribute("aria-valuetext", `step ${step}: ${texts.map((text) => `${text.arm} ${text.tokens[end(text)]}`).join(", ")}`);
  };
  const renew = () => {  // other texts: as far as they go, if they were followed to their end
    const whole = !steps.max || steps.value === steps.max;
    document.getElementById("paths-opening").textContent = opening.selectedOptions[0].textContent;
    steps.max = Math.max(0, ...shown().map((text) => text.tokens.length - 1));
    if (whole) steps.value = steps.max;
    draw();
  };

  let playing = null;
  const play = button("Play", () => (playing ? stop() : start()));
  const stop = () => { clearInterval(playing); playing = null; play.textContent = "Play"; };
  const start = () => {
    if (steps.value === steps.max) { steps.value = 0; draw(); }
    play.textContent = "Pause";
    playing = setInterval(() => {
      steps.stepUp();
      draw();
      if (steps.value === steps.max) stop();
    }, 500);
  };
  const moveTo = (by) => () => { stop(); by < 0 ? steps.stepDown() : steps.stepUp(); draw(); };
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const note = make("span", "Nothing moves by itself, as this system asks: use the slider. ", { class: "soft" });
  const calm = () => { if (still.matches) stop(); play.hidden = still.matches; note.hidden = !still.matches; };
  still.addEventListener("change", calm);
  steps.addEventListener("input", () => { stop(); draw(); });
  opening.addEventListener("change", () => { stop(); renew(); });
  without.addEventListener("change", draw);

  const first = make("p"), moving = make("p", undefined, { class: "slider" }), bare = make("label"), whose = make("label", "Opening ");
  whose.append(opening);
  bare.append(without, " without the vector that the arm adds");
  first.append(whose, " ", bare);
  moving.append(play, note, button("Back", moveTo(-1)), " ", steps, " ", button("Forward", moveTo(1)), " ", where);
  place.append(first, box, moving);
  calm();
  renew();
})();
