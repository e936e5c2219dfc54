"use strict";
// Figures as SVG, for the report's page and the dashboard's: axes, points with their names, a legend, the nearest point named
// under the pointer, and marks that move without a redraw.
const charts = (() => {
  const NS = "http://www.w3.org/2000/svg";
  const node = (name, attributes, parent) => {
    const made = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (parent) parent.append(made);
    return made;
  };

  // Numbers for people: short on an axis, in full elsewhere.
  const short = (v) => {
    if (v === 0) return "0";
    const size = Math.abs(v);
    if (size >= 1e15 || size < 1e-3) return v.toExponential(1).replace(".0e", "e").replace("e+", "e");
    for (const [unit, factor] of [["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e4]])
      if (size >= factor) return +(v / (unit === "k" ? 1e3 : factor)).toPrecision(3) + unit;
    return String(+v.toPrecision(3));
  };
  const full = (v) =>
    v === 0 ? "0" : Math.abs(v) >= 1e-3 && Math.abs(v) < 1e15 ? v.toLocaleString("en", { maximumSignificantDigits: 6 }) : v.toExponential(4);

  function scale(values, log, from, to, zero, gap) {
    const usable = values.filter((v) => Number.isFinite(v) && (!log || v > 0));
    let low = Math.min(...usable), high = Math.max(...usable);
    if (!usable.length) { low = log ? 1 : 0; high = log ? 10 : 1; }
    if (log) { low = Math.log10(low); high = Math.log10(high); }
    if (zero && !log) low = Math.min(0, low);
    const pad = high > low ? (high - low) * 0.04 : Math.abs(high) * 0.1 || 1;
    if (!(zero && low === 0)) low -= pad;
    high += pad;
    const at = (v) => from + (((log ? Math.log10(v) : v) - low) / (high - low)) * (to - from);
    const back = (p) => { const v = low + ((p - from) / (to - from)) * (high - low); return log ? 10 ** v : v; };
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
    return { at, back, ticks: [...new Set(ticks)] };
  }

  const colour = (k) => `var(--c${k % 8})`;
  function shade(k, count) {
    const style = getComputedStyle(document.documentElement), part = count > 1 ? k / (count - 1) : 1;
    const [a, b] = ["--shade0", "--shade1"].map((name) => style.getPropertyValue(name).split(",").map(Number));
    return `rgb(${a.map((v, i) => Math.round(v + (b[i] - v) * part)).join(",")})`;
  }

  // Draw `figure` into `box`; `pick` is told the values on both axes where somebody clicks.
  function draw(box, figure, pick) {
    const width = Math.max(280, box.clientWidth), height = Math.round(Math.min(400, Math.max(270, width * 0.5)));
    const named = figure.ticks.length > 0 && width / figure.ticks.length > 13;
    const edge = { left: 58, right: 12, top: 12, bottom: named ? 112 : 46 };
    const stack = figure.series.filter((s) => s.style === "stack"), bars = figure.series.some((s) => s.style === "bars");
    const paintOf = (s, k) => (s.style === "stack" ? shade(stack.indexOf(s), stack.length) : s.colour || colour(k));
    box.replaceChildren();
    const svg = node("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${figure.title}: ${figure.y} against ${figure.x}` }, box);
    const xs = figure.ticks.length ? [-0.5, figure.ticks.length - 0.5] : figure.series.flatMap((s) => s.x);
    const x = scale(xs, figure.xLog, edge.left, width - edge.right, false, 70);
    const ys = stack.length ? [0, 1] : figure.series.flatMap((s) => s.y);
    const y = scale(ys, figure.yLog, height - edge.bottom, edge.top, bars || stack.length > 0, 38);
    for (const v of y.ticks) {
      node("line", { x1: edge.left, x2: width - edge.right, y1: y.at(v), y2: y.at(v), class: "grid" }, svg);
      node("text", { x: edge.left - 6, y: y.at(v) + 4, "text-anchor": "end" }, svg).textContent = short(v);
    }
    if (named) figure.ticks.forEach((name, k) => {
      const text = node("text", { x: 0, y: 0, "text-anchor": "end", transform: `translate(${x.at(k) + 4},${height - edge.bottom + 8}) rotate(-90)` }, svg);
      text.textContent = name.length > 16 ? `${name.slice(0, 7)}\u2026${name.slice(-8)}` : name;
    });
    else for (const v of x.ticks) {
      if (figure.ticks.length && (v < 0 || v >= figure.ticks.length || v % 1)) continue;
      node("text", { x: x.at(v), y: height - edge.bottom + 18, "text-anchor": "middle" }, svg).textContent = short(v);
    }
    node("line", { x1: edge.left, x2: width - edge.right, y1: height - edge.bottom, y2: height - edge.bottom, class: "axis" }, svg);
    if (!named) node("text", { x: (edge.left + width - edge.right) / 2, y: height - 6, "text-anchor": "middle" }, svg).textContent = figure.x;
    node("text", { transform: `translate(13,${(edge.top + height - edge.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, svg).textContent = figure.y;
    const bar = Math.max(1, (figure.ticks.length ? (width - edge.left - edge.right) / figure.ticks.length : 8) * (stack.length ? 0.96 : 0.72));
    const points = [], names = [], base = new Map();
    figure.series.forEach((s, k) => {
      const paint = paintOf(s, k);
      const at = s.x.map((v, i) => [v, s.y[i], s.labels[i]]).filter(([a, b]) => (!figure.xLog || a > 0) && (!figure.yLog || b > 0));
      if (s.style === "line")
        node("path", { d: at.map(([a, b], i) => `${i ? "L" : "M"}${x.at(a).toFixed(1)},${y.at(b).toFixed(1)}`).join(""), fill: "none", stroke: paint, "stroke-width": 2, "stroke-dasharray": ["", "6 3", "2 3"][Math.floor(k / 8) % 3] }, svg);
      for (const [a, b, label] of at) {
        const px = x.at(a);
        let py = y.at(b);
        if (s.style === "bars") node("rect", { x: px - bar / 2, y: py, width: bar, height: Math.max(0.5, height - edge.bottom - py), fill: paint }, svg);
        else if (s.style === "dash") node("line", { x1: px - bar * 0.68, x2: px + bar * 0.68, y1: py, y2: py, stroke: paint, "stroke-width": 2.5 }, svg);
        else if (s.style === "stack") {
          const under = base.get(a) || 0;
          base.set(a, under + b);
          py = y.at(under + b);
          if (b > 0) node("rect", { x: px - bar / 2, y: py, width: bar, height: y.at(under) - py, fill: paint }, svg);
          py = y.at(under + b / 2);
        } else if (s.style === "ring") node("circle", { cx: px, cy: py, r: 6, fill: "none", stroke: paint, "stroke-width": 2.5 }, svg);
        else if (s.style === "dots" || at.length < 60) node("circle", { cx: px, cy: py, r: s.style === "dots" ? 4.5 : 3, fill: paint }, svg);
        if (s.marked && label) names.push({ px, py, label, paint });
        points.push({ px, py, text: `${label || s.name}: ${figure.ticks.length ? "" : full(a) + ", "}${s.style === "stack" ? s.name + " " : ""}${full(b)}` });
      }
    });
    annotate(svg, names, points, width - edge.right);
    box.frame = { x, y, edge, width, height, log: figure.xLog, group: node("g", {}, svg) };
    hover(box, svg, points, width);
    if (pick) {
      svg.classList.add("pick");
      svg.addEventListener("click", (event) => {
        const frame = svg.getBoundingClientRect(), f = width / frame.width;
        const within = (v, low, high) => Math.min(Math.max(v, low), high);
        pick(x.back(within((event.clientX - frame.left) * f, edge.left, width - edge.right)), y.back(within((event.clientY - frame.top) * f, edge.top, height - edge.bottom)));
      });
    }
    legend(box, figure, paintOf);
    if (box.marks) mark(box, box.marks);
  }

  // Each point's name beside it, where it covers neither another name nor another point.
  function annotate(svg, names, points, right) {
    const taken = points.map((p) => [p.px - 5, p.py - 5, p.px + 5, p.py + 5]);
    for (const { px, py, label, paint } of names) {
      const text = node("text", {}, svg);
      text.style.fill = paint;
      text.textContent = label;
      const wide = text.getComputedTextLength();
      const spots = [[10, 4], [-10 - wide, 4], [-wide / 2, -10], [-wide / 2, 20], [10, 20], [10, -10], [-10 - wide, -10], [-10 - wide, 20]];
      const free = ([dx, dy]) => {
        const box = [px + dx, py + dy - 10, px + dx + wide, py + dy + 2];
        return box[0] > 60 && box[1] > 0 && box[2] < right && taken.every((t) => t[2] < box[0] || t[0] > box[2] || t[3] < box[1] || t[1] > box[3]);
      };
      const spot = spots.find(free);
      if (!spot) { text.remove(); continue; }
      const [dx, dy] = spot;
      text.setAttribute("x", px + dx); text.setAttribute("y", py + dy);
      taken.push([px + dx, py + dy - 10, px + dx + wide, py + dy + 2]);
    }
  }

  function hover(box, svg, points, width) {
    const tip = document.createElement("div");
    tip.className = "tip"; tip.hidden = true; box.append(tip);
    svg.addEventListener("pointermove", (event) => {
      const frame = svg.getBoundingClientRect(), f = width / frame.width;
      const mx = (event.clientX - frame.left) * f, my = (event.clientY - frame.top) * f;
      let best = null, near = 900;
      for (const p of points) { const d = (p.px - mx) ** 2 + (p.py - my) ** 2; if (d < near) { near = d; best = p; } }
      tip.hidden = !best;
      if (best) { tip.textContent = best.text; tip.style.left = `${Math.max(0, Math.min(best.px / f, frame.width - 150))}px`; tip.style.top = `${best.py / f + 12}px`; }
    });
    svg.addEventListener("pointerleave", () => { tip.hidden = true; });
  }

  // Put marks over a drawn figure: {x, y, text} a ring, {x} or {y} alone a line across.
  function mark(box, marks) {
    box.marks = marks;
    const { x, y, edge, width, height, log, group } = box.frame;
    group.replaceChildren();
    for (const m of marks) {
      const paint = m.colour || "var(--ink)";
      const px = m.x > 0 || (m.x === 0 && !log) ? x.at(m.x) : null, py = m.y === undefined ? null : y.at(m.y);
      const inside = (p, low, high) => p !== null && Number.isFinite(p) && p >= low - 1 && p <= high + 1;
      const inX = inside(px, edge.left, width - edge.right), inY = inside(py, edge.top, height - edge.bottom);
      if (m.y === undefined) {
        if (inX) node("line", { x1: px, x2: px, y1: edge.top, y2: height - edge.bottom, stroke: paint, "stroke-dasharray": "4 3" }, group);
      } else if (m.x === undefined) {
        if (inY) node("line", { x1: edge.left, x2: width - edge.right, y1: py, y2: py, stroke: paint, "stroke-dasharray": "4 3" }, group);
      } else if (inX && inY) {
        node("circle", { cx: px, cy: py, r: 6.5, fill: "none", stroke: paint, "stroke-width": 3 }, group);
        if (m.text) {
          const left = px > edge.left + 70; // below a falling curve there is room
          node("text", { x: px + (left ? -10 : 11), y: py + (left ? 18 : -9), "text-anchor": left ? "end" : "start", class: "said" }, group).textContent = m.text;
        }
      }
    }
  }

  function legend(box, figure, paintOf) {
    if (figure.series.length < 2) return;
    const list = document.createElement("ul");
    list.className = "legend";
    figure.series.forEach((s, k) => {
      const item = document.createElement("li"), swatch = document.createElement("span");
      swatch.style.background = paintOf(s, k);
      item.append(swatch, s.name);
      list.append(item);
    });
    box.append(list);
  }

  return { draw, mark, full };
})();
