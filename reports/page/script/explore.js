// Choosing, linking and saving in a report. Every number here was computed and printed by Python;
// the script only shows, hides, looks up and copies. It asks nothing of any network.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("explore-data").textContent);

  // --- one chosen latent, everywhere ---
  const pairs = data.pairs;
  const fineOf = new Map(), coarseOf = new Map();
  const note = (map, key, value) => map.set(key, (map.get(key) || new Set()).add(value));
  for (const [coarse, fine] of pairs) { note(fineOf, coarse, fine); note(coarseOf, fine, coarse); }
  const place = (side, latent) => `latent=${side}/${latent}`;
  const chosenIn = (hash) => {
    const found = /^#latent=(coarse|fine)\/(\d+)$/.exec(hash);
    return found ? { side: found[1], latent: Number(found[2]) } : null;
  };
  const goesWith = (element, chosen) => {
    const { coarse, fine } = element.dataset;
    const own = chosen.side === "coarse" ? coarse : fine;
    if (own !== undefined) return Number(own) === chosen.latent;
    const other = Number(chosen.side === "coarse" ? fine : coarse);
    const related = (chosen.side === "coarse" ? fineOf : coarseOf).get(chosen.latent);
    return related !== undefined && related.has(other);
  };
  const linked = document.querySelectorAll("[data-coarse], [data-fine]");
  const isRow = (element) => element.tagName === "TR" || element.tagName === "DETAILS";
  const bar = make("div", undefined, { class: "explore", role: "region", "aria-label": "Explore" });
  const list = make("select", undefined, { "aria-label": "Show one latent" });
  const said = make("p", "", { class: "soft", "aria-live": "polite" });
  list.add(new Option("all latents", ""));
  for (const [side, latent, role] of data.latents) {
    list.add(new Option(`${side === "coarse" ? "C" : "F"}-${latent} (${role})`, place(side, latent)));
  }
  const show = (chosen) => {
    let kept = 0;
    for (const element of linked) {
      const stays = !chosen || goesWith(element, chosen);
      if (isRow(element)) element.hidden = !stays;
      else element.classList.toggle("dim", !stays);
      kept += stays ? 1 : 0;
    }
    const wanted = chosen ? place(chosen.side, chosen.latent) : "";
    list.value = wanted;
    if (list.selectedIndex < 0) list.value = "";
    const opened = chosen && document.getElementById(wanted);
    if (opened) opened.open = true;
    said.textContent = chosen
      ? `Showing what belongs to ${chosen.side} latent ${chosen.latent}: ${kept} of ${linked.length} marks and rows. Escape shows all.`
      : "";
    showArms(chosen);
  };
  const choose = (chosen) => {
    const hash = chosen ? `#${place(chosen.side, chosen.latent)}` : "";
    if (hash !== location.hash) history.pushState(null, "", hash || location.pathname + location.search);
    show(chosen);
  };
  list.addEventListener("change", () => choose(chosenIn(`#${list.value}`)));
  document.addEventListener("click", (event) => {
    const mark = event.target.closest("svg [data-coarse], svg [data-fine]");
    if (!mark) return;
    const { coarse, fine } = mark.dataset;
    choose(coarse !== undefined ? { side: "coarse", latent: Number(coarse) }
                                : { side: "fine", latent: Number(fine) });
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") choose(null);
  });
  window.addEventListener("hashchange", () => show(chosenIn(location.hash)));

  // --- samples: one opening, arms beside one another ---
  const armOf = (row) => row.dataset.arm;
  const showArms = (chosen) => {
    const name = chosen ? place(chosen.side, chosen.latent) : null;
    for (const row of document.querySelectorAll("#samples tr[data-arm]")) {
      const made = data.arms[armOf(row)];
      row.hidden = Boolean(name && made && !made.includes(name)) || unticked.has(armOf(row));
    }
  };
  const unticked = new Set();
  const samples = document.getElementById("samples");
  const arms = [...new Set([...samples.querySelectorAll("tr[data-arm]")].map(armOf))];
  if (arms.length) {
    const box = make("fieldset", undefined, { class: "arms" });
    box.append(make("legend", "Arms"));
    for (const arm of arms) {
      const label = make("label"), tick = make("input", undefined, { type: "checkbox" });
      tick.checked = true;
      tick.addEventListener("change", () => {
        unticked[tick.checked ? "delete" : "add"](arm);
        showArms(chosenIn(location.hash));
      });
      label.append(tick, ` ${arm}`);
      box.append(label);
    }
    samples.querySelector("details").before(box);
  }

  // --- what other settings would say: looked up, never computed ---
  const slide = (table, name, ranges, declared, step, digits) => {
    const wanted = document.getElementById(table);
    if (!wanted || !ranges.length) return;
    const line = make("p", undefined, { class: "slider" });
    const label = make("label", `${name} `);
    const first = ranges[0].low, last = ranges.at(-1).high;
    const slider = make("input", undefined, { type: "range", min: first, max: last, step });
    slider.value = declared;
    const answer = make("output");
    const tell = () => {
      const value = Number(slider.value);
      const found = ranges.find((one) => value <= one.high + 1e-9);
      const own = Math.abs(value - declared) < 1e-9 ? " (as declared)" : "";
      answer.textContent = `${value.toFixed(digits)}${own}: ${found.verdict}${found.note ? `; ${found.note}` : ""}`;
      answer.classList.toggle("other-run", Boolean(found.note));
    };
    slider.addEventListener("input", tell);
    label.append(slider, " ", answer);
    line.append(label);
    wanted.before(line);
    tell();
  };
  slide("sensitivity-verdict", "minDifference", data.sensitivity, data.declared.minDifference, 0.01, 2);
  slide("sensitivity-gate", "minSubfeatures", data.gateByCount, data.declared.minSubfeatures, 1, 0);

  // --- saving: a table as CSV, a picture as SVG or PNG ---
  const save = (name, blob) => {
    const link = make("a", undefined, { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  const quoted = (text) => {
    const words = text.trim().replace(/\s+/g, " ");
    // A spreadsheet takes a text that begins so for a formula; numbers are left as they are.
    const safe = /^[=+@]|^-(?![\d.])/.test(words) ? `'${words}` : words;
    return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const csv = (rows) => rows.map((row) => row.map((cell) => quoted(String(cell ?? ""))).join(",")).join("\n") + "\n";
  // A heading between rows becomes a column: it says of which part the rows below it are.
  const ofTable = (table) => {
    const [head, ...rows] = [...table.querySelectorAll("tr")].filter((row) => !row.hidden);
    const cells = (row) => [...row.cells].flatMap((cell) => [cell.textContent, ...Array(cell.colSpan - 1).fill("")]);
    const parts = table.querySelectorAll("thead").length > 1;
    let part = parts ? table.caption.textContent : "";
    const found = [[...cells(head), ...(parts ? ["part"] : [])]];
    for (const row of rows) {
      if (row.closest("thead")) part = row.textContent;
      else found.push([...cells(row), ...(parts ? [part] : [])]);
    }
    return found;
  };
  const button = (word, about, act) => {
    const made = make("button", word, { type: "button", "aria-label": `${about} as ${word}` });
    made.addEventListener("click", act);
    return made;
  };
  const asParquet = (about, rows) => button("Parquet", about, () => {
    const table = rows(), units = Object.entries(data.units).filter(([name]) => table[0].includes(name));
    const attributes = { ...data.origin, table: about, units: Object.fromEntries(units) };
    save(`${named(about)}.parquet`, new Blob([parquet(table, attributes)], { type: "application/vnd.apache.parquet" }));
  });
  // A table's cells are words: a column of numbers, as they are written here, is read as one.
  const number = (text) => Number(text.replaceAll(",", "").replace("\u2212", "-"));
  const typed = ([names, ...rows]) => {
    const cells = rows.map((row) => names.map((_, at) => {
      const words = (row[at] ?? "").trim().replace(/\s+/g, " ");
      return words === "" || words === "\u2013" ? null : words;
    }));
    names.forEach((_, at) => {
      const known = cells.map((row) => row[at]).filter((cell) => cell !== null);
      if (known.length && known.every((cell) => !Number.isNaN(number(cell)))) {
        for (const row of cells) if (row[at] !== null) row[at] = number(row[at]);
      }
    });
    return [names.map((name) => name.trim()), ...cells];
  };
  const named = (text) => `${data.name}-${text.toLowerCase().replace(/[^a-z0-9]+/g, "-").slice(0, 60)}`;
  const asCsv = (about, rows) => button("CSV", about, () =>
    save(`${named(about)}.csv`, new Blob([csv(rows())], { type: "text/csv" })));
  for (const region of document.querySelectorAll(".scroll")) {
    const about = region.getAttribute("aria-label"), table = region.querySelector("table");
    const line = make("p", undefined, { class: "save" });
    const rows = () => typed(ofTable(table));
    line.append("save ", asCsv(about, rows), " ", asParquet(about, rows));
    region.after(line);
  }
  const styled = (svg) => {
    const copy = svg.cloneNode(true), from = svg.querySelectorAll("*"), to = copy.querySelectorAll("*");
    from.forEach((element, at) => {
      const style = getComputedStyle(element);
      for (const name of ["fill", "stroke", "stroke-width", "paint-order", "stroke-dasharray", "opacity", "fill-opacity", "font-size", "font-weight"]) {
        to[at].setAttribute(name, style.getPropertyValue(name));
      }
      to[at].removeAttribute("class");
    });
    const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.setAttribute("width", width);
    copy.setAttribute("height", height);
    copy.setAttribute("font-family", "sans-serif");
    return { text: new XMLSerializer().serializeToString(copy), width, height };
  };
  const png = (svg, about) => {
    const drawn = styled(svg), image = new Image(), canvas = make("canvas");
    canvas.width = 2 * drawn.width;
    canvas.height = 2 * drawn.height;
    image.onload = () => {
      const pen = canvas.getContext("2d");
      pen.fillStyle = getComputedStyle(document.querySelector("section")).backgroundColor;
      pen.fillRect(0, 0, canvas.width, canvas.height);
      pen.drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => save(`${named(about)}.png`, blob));
    };
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(drawn.text)}`;
  };
  // What a picture was drawn of, with a head; nothing where it has no table of its own.
  const ofPicture = (svg) => {
    const marks = (wanted) => [...svg.querySelectorAll(wanted)].map(({ dataset }) => dataset);
    const cells = marks("[data-value]"), prompts = marks("[data-prompt]"), plane = svg.dataset.plane;
    if (cells.length) {
      const numbers = ({ coarse, fine, value }) => [coarse, fine, value].map((cell) => (cell === "" ? null : Number(cell)));
      return [["coarse", "fine", "value"], ...cells.map(numbers)];
    }
    if (svg.dataset.columns) return [svg.dataset.columns.split(","), ...marks("[data-cells]").map((one) => JSON.parse(one.cells))];
    if (plane) {
      return [["prompt_id", "arm", "strength", "step", "token", "steered", "x", "y", "x_before", "y_before"],
        ...data.paths.texts.flatMap(({ opening, arm, strength, tokens, steered, behind, before }) => tokens.map((token, step) =>
          [opening, arm, strength, step, token, steered[step], ...behind[plane][step], ...before[plane][step]]))];
    }
    if (prompts.length) {
      return [["prompt_id", "condition", "x", "y"], ...prompts.map(({ prompt, condition, x, y }) => [prompt, condition, Number(x), Number(y)])];
    }
    return svg.querySelector("[data-coarse][data-fine]") ? [data.pairColumns, ...pairs] : null;
  };
  for (const svg of document.querySelectorAll("figure > svg")) {
    const about = svg.getAttribute("aria-label"), rows = ofPicture(svg);
    const line = make("p", undefined, { class: "save" });
    line.append("save ",
      button("SVG", about, () => save(`${named(about)}.svg`, new Blob([styled(svg).text], { type: "image/svg+xml" }))),
      " ", button("PNG", about, () => png(svg, about)));
    if (rows) line.append(" ", asCsv(about, () => rows), " ", asParquet(about, () => rows));
    svg.after(line);
  }

  // --- what stands under the pointer, with the prompts on which both latents fire ---
  const both = new Map(data.both.map(([coarse, fine, texts]) => [`${coarse}/${fine}`, texts]));
  const under = make("div", undefined, { class: "under", role: "status", hidden: "" });
  const tell = (mark) => {
    const texts = both.get(`${mark.dataset.coarse}/${mark.dataset.fine}`);
    const title = mark.querySelector("title");
    if (!title || !texts) { under.hidden = true; return; }
    under.replaceChildren(make("strong", title.textContent));
    under.append(make("p", texts.length ? "Both fire on:" : "There is no prompt on which both fire."));
    const listed = make("ul");
    for (const text of texts) listed.append(make("li", text));
    if (texts.length) under.append(listed);
    under.hidden = false;
  };
  document.addEventListener("pointerover", (event) => {
    const mark = event.target.closest && event.target.closest("svg [data-coarse][data-fine]");
    if (mark) tell(mark); else under.hidden = true;
  });

  bar.append(make("strong", "Explore "), list, said);
  document.querySelector("main").before(bar);
  document.body.append(under);
  show(chosenIn(location.hash));
})();
