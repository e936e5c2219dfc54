"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const NS = "http://www.w3.org/2000/svg";
  const node = (name, attributes, parent) => {
    const made = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (parent) parent.append(made);
    return made;
  };
  const short = (v) => {
    if (v === 0) return "0";
    const size = Math.abs(v);
    if (size >= 1e15 || size < 1e-3) return v.toExponential(1).replace(".0e", "e").replace("e+", "e");
    for (const [unit, factor] of [["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e4]])
      if (size >= factor) return +(v / (unit === "k" ? 1e3 : factor)).toPrecision(3) + unit;
    return String(+v.toPrecision(3));
  };
  const full = (v) => (v === 0 ? "0" : Math.abs(v) >= 1e-3 && Math.abs(v) < 1e15 ? v.toLocaleString("en", { maximumSignificantDigits: 6 }) : v.toExponential(4));

  function scale(values, log, from, to, zero, gap) {
    const usable = values.filter((v) => Number.isFinite(v) && (!log || v > 0));
    let low = Math.min(...usable), high = Math.max(...usable);
    if (log) { low = Math.log10(low); high = Math.log10(high); }
    if (zero && !log) low = Math.min(0, low);
    const pad = high > low ? (high - low) * 0.04 : Math.abs(high) * 0.1 || 1;
    if (!(zero && low === 0)) low -= pad;
    high += pad;
    const at = (v) => from + (((log ? Math.log10(v) : v) - low) / (high - low)) * (to - from);
    const ticks = [];
    if (log) {
      const step = Math.max(1, Math.ceil((high - low) / (Math.abs(to - from) / gap)));
      for (let e = Math.ceil(low); e <= high; e += step) ticks.push(10 ** e);
      if (ticks.length < 2) for (let k = 0; k < 4; k++) ticks.push(+(10 ** (low + ((high - low) * (k + 0.5)) / 4)).toPrecision(2));
    } else {
      const raw = (high - low) / Math.max(2, Math.abs(to - from) / gap), ten = 10 ** Math.floor(Math.log10(raw));
      const step = ten * [1, 2, 5, 10].find((m) => m * ten >= raw);
      for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) ticks.push(+v.toPrecision(12));
    }
    return { at, ticks: [...new Set(ticks)], floor: log ? 10 ** low : low };
  }

  const colour = (k) => `var(--c${k % 8})`;
  function shade(k, count) {
    const style = getComputedStyle(document.documentElement), part = count > 1 ? k / (count - 1) : 1;
    const [a, b] = ["--shade0", "--shade1"].map((name) => style.getPropertyValue(name).split(",").map(Number));
    return `rgb(${a.map((v, i) => Math.round(v + (b[i] - v) * part)).join(",")})`;
  }

  function draw(box) {
    const figure = data.figures[box.dataset.figure];
    const width = Math.max(280, box.clientWidth), height = Math.round(Math.min(400, Math.max(270, width * 0.5)));
    const named = figure.ticks.length > 0 && width / figure.ticks.length > 13;
    const edge = { left: 58, right: 12, top: 12, bottom: named ? 112 : 46 };
    const stack = figure.series.filter((s) => s.style === "stack"), bars = figure.series.some((s) => s.style === "bars");
    box.replaceChildren();
    const svg = node("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${figure.title}: ${figure.y} against ${figure.x}` }, box);
    const xs = figure.ticks.length ? [-0.5, figure.ticks.length - 0.5] : figure.series.flatMap((s) => s.x);
    const ys = stack.length ? [0, 1] : figure.series.flatMap((s) => s.y);
    const x = scale(xs, figure.xLog, edge.left, width - edge.right, false, 70);
    const y = scale(ys, figure.yLog, height - edge.bottom, edge.top, bars || stack.length > 0, 38);
    for (const v of y.ticks) {
      node("line", { x1: edge.left, x2: width - edge.right, y1: y.at(v), y2: y.at(v), class: "grid" }, svg);
      node("text", { x: edge.left - 6, y: y.at(v) + 4, "text-anchor": "end" }, svg).textContent = short(v);
    }
    if (named) figure.ticks.forEach((name, k) => {
      const text = node("text", { x: 0, y: 0, "text-anchor": "end", transform: `translate(${x.at(k) + 4},${height - edge.bottom + 8}) rotate(-90)` }, svg);
      text.textContent = name.length > 16 ? name.slice(0, 15) + "\u2026" : name;
    });
    else for (const v of x.ticks) {
      if (figure.ticks.length && (v < 0 || v >= figure.ticks.length || v % 1)) continue;
      node("text", { x: x.at(v), y: height - edge.bottom + 18, "text-anchor": "middle" }, svg).textContent = short(v);
    }
    node("line", { x1: edge.left, x2: width - edge.right, y1: height - edge.bottom, y2: height - edge.bottom, class: "axis" }, svg);
    if (!named) node("text", { x: (edge.left + width - edge.right) / 2, y: height - 6, "text-anchor": "middle" }, svg).textContent = figure.x;
    node("text", { transform: `translate(13,${(edge.top + height - edge.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, svg).textContent = figure.y;
    const bar = Math.max(1, (figure.ticks.length ? (width - edge.left - edge.right) / figure.ticks.length : 8) * (stack.length ? 0.96 : 0.72));
    const points = [], marks = [], base = new Map();
    figure.series.forEach((s, k) => {
      const paint = s.style === "stack" ? shade(stack.indexOf(s), stack.length) : colour(k);
      const at = s.x.map((v, i) => [v, s.y[i], s.labels[i]]).filter(([a, b]) => (!figure.xLog || a > 0) && (!figure.yLog || b > 0));
      if (s.style === "line")
        node("path", { d: at.map(([a, b], i) => `${i ? "L" : "M"}${x.at(a).toFixed(1)},${y.at(b).toFixed(1)}`).join(""), fill: "none", stroke: paint, "stroke-width": 2, "stroke-dasharray": ["", "6 3", "2 3"][Math.floor(k / 8) % 3] }, svg);
      for (const [a, b, label] of at) {
        const px = x.at(a);
        let py = y.at(b);
        if (s.style === "bars") node("rect", { x: px - bar / 2, y: py, width: bar, height: Math.max(0.5, height - edge.bottom - py), fill: paint }, svg);
        else if (s.style === "stack") {
          const under = base.get(a) || 0;
          base.set(a, under + b);
          py = y.at(under + b);
          if (b > 0) node("rect", { x: px - bar / 2, y: py, width: bar, height: y.at(under) - py, fill: paint }, svg);
          py = y.at(under + b / 2);
        } else if (s.style === "ring") node("circle", { cx: px, cy: py, r: 6, fill: "none", stroke: paint, "stroke-width": 2.5 }, svg);
        else if (s.style === "dots" || at.length < 60) node("circle", { cx: px, cy: py, r: s.style === "dots" ? 4.5 : 3, fill: paint }, svg);
        if (s.marked && label) marks.push({ px, py, label, paint });
        points.push({ px, py, text: `${label || s.name}: ${figure.ticks.length ? "" : full(a) + ", "}${s.style === "stack" ? s.name + " " : ""}${full(b)}` });
      }
    });
    annotate(svg, marks, points, width - edge.right);
    if (figure.key === "frontier" && data.curve) box.mark = node("circle", { r: 8, fill: "none", stroke: "var(--ink)", "stroke-width": 3 }, svg);
    box.places = { x, y };
    const tip = document.createElement("div");
    tip.className = "tip"; tip.hidden = true; box.append(tip);
    svg.addEventListener("pointermove", (event) => {
      const frame = svg.getBoundingClientRect(), f = width / frame.width;
      const mx = (event.clientX - frame.left) * f, my = (event.clientY - frame.top) * f;
      let best = null, near = 900;
      for (const p of points) { const d = (p.px - mx) ** 2 + (p.py - my) ** 2; if (d < near) { near = d; best = p; } }
      tip.hidden = !best;
      if (best) { tip.textContent = best.text; tip.style.left = `${Math.min(best.px / f, frame.width - 150)}px`; tip.style.top = `${best.py / f + 12}px`; }
    });
    svg.addEventListener("pointerleave", () => { tip.hidden = true; });
    if (figure.key === "frontier" && data.curve) svg.addEventListener("click", (event) => {
      const frame = svg.getBoundingClientRect(), f = width / frame.width;
      const mx = (event.clientX - frame.left) * f;
      let best = 0, near = Infinity;
      data.curve.damage.forEach((v, i) => { if (v > 0) { const d = Math.abs(x.at(v) - mx); if (d < near) { near = d; best = i; } } });
      choose(best);
    });
    legend(box, figure, stack);
  }

  // Each mark's name beside it, where it covers neither another name nor another mark.
  function annotate(svg, marks, points, right) {
    const taken = points.map((p) => [p.px - 5, p.py - 5, p.px + 5, p.py + 5]);
    for (const { px, py, label, paint } of marks) {
      const text = node("text", { fill: paint, style: `fill:${paint}` }, svg);
      text.textContent = label;
      const wide = text.getComputedTextLength();
      const spots = [[10, 4], [-10 - wide, 4], [-wide / 2, -10], [-wide / 2, 20], [10, 20], [10, -10], [-10 - wide, -10], [-10 - wide, 20]];
      const free = ([dx, dy]) => {
        const box = [px + dx, py + dy - 10, px + dx + wide, py + dy + 2];
        return box[0] > 60 && box[2] < right && taken.every((t) => t[2] < box[0] || t[0] > box[2] || t[3] < box[1] || t[1] > box[3]);
      };
      const spot = spots.find(free);
      if (!spot) { text.remove(); continue; }
      const [dx, dy] = spot;
      text.setAttribute("x", px + dx); text.setAttribute("y", py + dy);
      taken.push([px + dx, py + dy - 10, px + dx + wide, py + dy + 2]);
    }
  }

  function legend(box, figure, stack) {
    if (figure.series.length < 2) return;
    const list = document.createElement("ul");
    list.className = "legend";
    figure.series.forEach((s, k) => {
      const item = document.createElement("li"), swatch = document.createElement("span");
      swatch.style.background = s.style === "stack" ? shade(stack.indexOf(s), stack.length) : colour(k);
      item.append(swatch, s.name);
      list.append(item);
    });
    box.append(list);
  }

  const slider = document.getElementById("point"), said = document.getElementById("said"), cells = document.getElementById("cells"), rest = document.getElementById("rest");
  let current = data.curve ? data.curve.own : 0;
  function choose(k) {
    const curve = data.curve;
    current = Math.max(0, Math.min(curve.cost.length - 1, k));
    slider.value = current;
    const box = document.querySelector('[data-figure="frontier"]');
    if (box.mark && curve.damage[current] > 0) {
      box.mark.setAttribute("cx", box.places.x.at(curve.damage[current]));
      box.mark.setAttribute("cy", box.places.y.at(curve.cost[current]));
      box.mark.removeAttribute("visibility");
    } else if (box.mark) box.mark.setAttribute("visibility", "hidden");
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
