"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { full } = charts;

  const slider = document.getElementById("point"), said = document.getElementById("said"), cells = document.getElementById("cells"), rest = document.getElementById("rest");
  let current = data.curve ? data.curve.own : 0;
  function choose(k) {
    const curve = data.curve;
    current = Math.max(0, Math.min(curve.cost.length - 1, k));
    slider.value = current;
    charts.mark(document.querySelector('[data-figure="frontier"]'), [{ x: curve.damage[current], y: curve.cost[current] }]);
    let bits = 0, elements = 0;
    curve.layers.forEach((layer, l) => { if (layer.kind === "weight") { bits += curve.bits[current][l] * curve.sizes[l]; elements += curve.sizes[l]; } });
    said.textContent = (current === curve.own ? "This allocation: " : "Breakpoint: ") + `damage ${full(curve.damage[current])} · ${curve.costName} ${full(curve.cost[current])} ${curve.unit}` + (elements ? ` · ${(bits / elements).toFixed(3)} bits a weight` : "");
    slider.setAttribute("aria-valuetext", said.textContent);
    const row = curve.bits[current], digits = row.some((b) => b % 1) ? 2 : 0;
    const tensors = row.filter((_, l) => curve.layers[l].kind === "activation"), alike = tensors.length > 1 && tensors.every((b) => b === tensors[0]);
    rest.textContent = alike ? `All ${tensors.length} activations get ${tensors[0]} bit${tensors[0] === 1 ? "" : "s"}.` : "";
    curve.layers.forEach((layer, l) => { cells.children[l].hidden = alike && layer.kind === "activation"; });
    curve.layers.forEach((layer, l) => {
      const cell = cells.children[l];
      cell.querySelector("i").style.width = `${(100 * row[l]) / curve.most}%`;
      cell.querySelector("em").textContent = row[l].toFixed(digits);
    });
  }
  if (data.curve) {
    for (const layer of data.curve.layers) {
      const cell = document.createElement("div"), name = document.createElement("b"), track = document.createElement("span"), value = document.createElement("em");
      name.textContent = layer.name.length > 24 ? `${layer.name.slice(0, 12)}\u2026${layer.name.slice(-10)}` : layer.name; name.title = `${layer.name} (${layer.kind})`;
      track.className = `track ${layer.kind}`; track.append(document.createElement("i"));
      cell.append(name, track, value); cells.append(cell);
    }
    slider.max = data.curve.cost.length - 1;
    slider.addEventListener("input", () => choose(+slider.value));
    document.getElementById("back").addEventListener("click", () => choose(data.curve.own));
  }
  // Tables: sorted by a press on a heading; long ones are searched.
  for (const table of document.querySelectorAll("table.data")) {
    const body = table.tBodies[0], rows = () => [...body.rows].filter((row) => !row.classList.contains("kernels"));
    const key = (row, k) => { const cell = row.cells[k]; return cell.dataset.key === undefined ? cell.textContent.trim() : +cell.dataset.key; };
    const fold = () => { body.querySelectorAll("tr.kernels").forEach((row) => row.remove()); body.querySelectorAll("[aria-expanded]").forEach((b) => b.setAttribute("aria-expanded", "false")); };
    [...table.tHead.rows[0].cells].forEach((head, k) => {
      if (rows().length < 2) return;
      const press = document.createElement("button");
      press.type = "button"; press.className = "sort"; press.append(...head.childNodes); head.append(press);
      press.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending" || (!head.hasAttribute("aria-sort") && head.classList.contains("n"));
        fold();
        const sorted = rows().map((row, place) => [key(row, k), place, row]);
        const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : typeof a === "number" ? 1 : typeof b === "number" ? -1 : String(a).localeCompare(String(b), "en", { numeric: true }));
        sorted.sort((a, b) => (down ? -1 : 1) * compare(a[0], b[0]) || a[1] - b[1]);
        body.append(...sorted.map(([, , row]) => row));
        for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
      });
    });
    if (rows().length > 12) {
      const field = document.createElement("input"), count = document.createElement("span");
      field.type = "search"; field.className = "find"; field.placeholder = "find a row"; field.setAttribute("aria-label", `find a row in ${table.parentNode.getAttribute("aria-label")}`);
      count.className = "soft"; count.setAttribute("aria-live", "polite");
      field.addEventListener("input", () => {
        const word = field.value.trim().toLowerCase();
        let shown = 0;
        fold();
        for (const row of rows()) { row.hidden = !row.textContent.toLowerCase().includes(word); shown += !row.hidden; }
        count.textContent = word ? ` ${shown} of ${rows().length}` : "";
      });
      table.parentNode.before(field, count);
    }
  }

  // Kernels of a layer, when they are asked for.
  if (data.kernels) for (const name of document.querySelectorAll("[data-layer]")) {
    const press = document.createElement("button");
    press.type = "button"; press.className = "fold"; press.setAttribute("aria-expanded", "false");
    press.append(...name.childNodes); name.append(press);
    press.addEventListener("click", () => {
      const row = name.closest("tr"), open = press.getAttribute("aria-expanded") === "true";
      press.setAttribute("aria-expanded", String(!open));
      if (open) { row.nextElementSibling.remove(); return; }
      const levels = data.kernels.levels, letters = [...data.kernels.layers[+name.dataset.layer]].map((c) => c.codePointAt(0) - 48);
      const below = document.createElement("tr"), cell = document.createElement("td"), said = document.createElement("p"), strip = document.createElement("div");
      below.className = "kernels"; cell.colSpan = row.cells.length; strip.className = "strip";
      const counts = levels.map((_, k) => letters.filter((l) => l === k).length), word = (b) => `${b} bit${b === 1 ? "" : "s"}`;
      said.textContent = `${letters.length} kernels: ` + levels.map((b, k) => [b, counts[k]]).filter(([, n]) => n).map(([b, n]) => `${n} at ${word(b)}`).join(", ");
      letters.forEach((k, place) => {
        const one = document.createElement("i");
        one.textContent = levels[k]; one.title = `${press.textContent}[${place}]: ${word(levels[k])}`;
        one.style.setProperty("--part", `${Math.round((100 * k) / Math.max(1, levels.length - 1))}%`);
        if (k * 2 >= levels.length) one.className = "deep";
        strip.append(one);
      });
      cell.append(said, strip); below.append(cell); row.after(below);
    });
  }

  // A click on the frontier takes the point that is nearest on the axis of damage, which is logarithmic.
  const nearest = (x) => {
    let best = 0, near = Infinity;
    data.curve.damage.forEach((v, i) => { const d = Math.abs(Math.log(v / x)); if (d < near) { near = d; best = i; } });
    choose(best);
  };
  const draw = (box) => charts.draw(box, data.figures[box.dataset.figure], box.dataset.figure === "frontier" && data.curve ? nearest : null);
  const redraw = () => { document.querySelectorAll(".chart").forEach(draw); if (data.curve) choose(current); };
  redraw();
  let last = document.documentElement.clientWidth, timer;
  addEventListener("resize", () => {
    if (document.documentElement.clientWidth === last) return;
    last = document.documentElement.clientWidth;
    clearTimeout(timer); timer = setTimeout(redraw, 80);
  });
  for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", redraw);
})();
