"use strict";
(() => {
  const get = (id) => document.getElementById(id);
  const view = get("view");

  // An element with properties and children; text is never read as markup.
  function make(tag, properties, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties || {})) {
      if (name === "class") made.className = value;
      else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (name in made && name !== "list") made[name] = value;
      else made.setAttribute(name, value);
    }
    made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
    return made;
  }
  // A dotted name that may be broken behind its dots and underscores.
  const breakable = (name) => name.split(/(?<=[._/])/).flatMap((part, k) => (k ? [document.createElement("wbr"), part] : [part]));
  const percent = (v) => (v === 0 || v >= 0.0005 ? `${(100 * v).toFixed(1)} %` : "< 0.1 %");
  const brief = (v, digits = 4) => (v === null || v === undefined ? "-" : String(+v.toPrecision(digits)));
  const count = (n, one, many) => `${n.toLocaleString("en")} ${n === 1 ? one : many || one + "s"}`;
  const tell = (text) => { get("told").textContent = text; };

  class Refused extends Error {
    constructor(message, status) { super(message); this.status = status; }
  }
  async function ask(path, body) {
    const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
    let answer;
    try { answer = await fetch("api/" + path, options); } catch { throw new Refused("The dashboard does not answer: it was ended.", 0); }
    const text = await answer.text();
    let told;
    try { told = JSON.parse(text); } catch { throw new Refused(text.trim() || `status ${answer.status}`, answer.status); }
    if (!answer.ok) throw new Refused(told.error, answer.status);
    return told;
  }

  // -- the list ------------------------------------------------------------------------------------------------------

  let items = [], listed = "";
  const chosen = new Set();
  const titleOf = (digest) => { const found = items.find((item) => item.kind === "problem" && item.digest === digest); return found ? found.path : ""; };

  function factsOf(item) {
    if (item.kind === "problem") return [item.title, count(item.groups, "group"), item.groups === item.layers ? "" : count(item.layers, "layer")].filter(Boolean).join(" \u00b7 ");
    if (item.kind === "allocation") return [item.status, item.cost, item.damage === undefined ? "" : `damage ${brief(item.damage)}`, titleOf(item.digest)].filter(Boolean).join(" \u00b7 ");
    if (item.kind === "run")
      return [item.strategy, count(item.rounds, "round"), item.bits === undefined ? "" : `${brief(item.bits)} bits`, item.validation === undefined ? "" : `${(100 * item.validation).toFixed(1)} %`].filter(Boolean).join(" \u00b7 ");
    return item.error;
  }
  function entry(item) {
    const label = item.path;
    if (item.kind === "broken") return make("li", { class: "broken" }, make("b", {}, label), make("small", {}, item.error));
    const box = make("input", { type: "checkbox", checked: chosen.has(item.key), "aria-label": `compare ${label}`, onchange: () => { box.checked ? chosen.add(item.key) : chosen.delete(item.key); buttons(); } });
    const link = make("a", { href: "#open=" + item.key }, label);
    const li = make("li", {}, box, link, make("small", {}, factsOf(item)));
    li.dataset.key = item.key;
    return li;
  }
  function list() {
    const wanted = get("find").value.trim().toLowerCase();
    const shown = items.filter((item) => !wanted || (item.path + " " + factsOf(item)).toLowerCase().includes(wanted));
    const parts = [["Runs", "run"], ["Problems", "problem"], ["Allocations", "allocation"], ["Cannot be read", "broken"]];
    const open = new Set([...document.querySelectorAll("#items details[open]")].map((one) => one.dataset.part));
    get("items").replaceChildren(...parts.flatMap(([title, kind]) => {
      const some = shown.filter((item) => item.kind === kind);
      const rounds = kind === "problem" ? some.filter((item) => item.round) : [], rest = some.filter((item) => !rounds.includes(item));
      const made = rest.length ? [make("h2", {}, title), make("ul", {}, rest.map(entry))] : [];
      if (rounds.length) {
        const fold = make("details", { open: open.has("rounds") || wanted !== "" }, make("summary", {}, `Problems of rounds (${rounds.length})`), make("ul", {}, rounds.map(entry)));
        fold.dataset.part = "rounds";
        made.push(fold);
      }
      return made;
    }));
    if (!items.length) get("items").replaceChildren(make("p", { class: "soft" }, "No problem, allocation or run is in this folder. ", make("code", {}, "impq-opt measure"), ", ", make("code", {}, "solve -o"), " and ", make("code", {}, "rounds -o"), " write them."));
    const told = items.filter((item) => item.kind !== "broken").length;
    get("count").textContent = told ? count(told, "item") : "";
    current(); buttons();
  }
  function current() {
    const { open } = place();
    for (const li of document.querySelectorAll("#items li[data-key]")) {
      li.classList.toggle("now", li.dataset.key === open);
      const link = li.querySelector("a");
      li.dataset.key === open ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
    }
  }
  function buttons() {
    for (const key of [...chosen]) if (!items.some((item) => item.key === key)) chosen.delete(key);
    get("compare").disabled = chosen.size < 2 || chosen.size > 8;
    get("compare").textContent = chosen.size > 8 ? "Compare at most 8" : chosen.size ? `Compare ${chosen.size}` : "Tick some to compare";
    get("clear").hidden = !chosen.size;
  }
  get("find").addEventListener("input", list);
  get("compare").addEventListener("click", () => { location.hash = "compare=" + [...chosen].join(","); });
  get("clear").addEventListener("click", () => { chosen.clear(); list(); });

  async function look() {
    let told;
    try { told = await ask("items"); } catch (error) { if (!items.length) fail(error); tell(error.message); return false; }
    const text = JSON.stringify(told.items);
    if (text === listed) return true;
    const before = new Map(items.map((item) => [item.key, item.state + item.kind]));
    items = told.items; listed = text;
    list();
    const { open, compare } = place(), changed = (key) => before.has(key) && before.get(key) !== (items.find((item) => item.key === key) || { state: "", kind: "" }).state + (items.find((item) => item.key === key) || { kind: "" }).kind;
    if ([open, ...compare].some((key) => key && changed(key))) { tell("A file changed and was read again."); route(); }
    return true;
  }

  // -- where we are --------------------------------------------------------------------------------------------------

  let shown = null; // what the main part shows now: late answers for something else are dropped
  const place = () => {
    const parts = new URLSearchParams(location.hash.slice(1));
    return { open: parts.get("open") || "", compare: (parts.get("compare") || "").split(",").filter(Boolean) };
  };
  function fail(error) {
    view.replaceChildren(make("p", { class: "error", role: "alert" }, error.message));
  }
  async function route() {
    const { open, compare } = place(), mine = {};
    shown = mine;
    current();
    const item = items.find((one) => one.key === open);
    setTimeout(() => { if (shown === mine && !mine.there) view.replaceChildren(make("p", { class: "soft" }, "Reading.")); }, 300);
    try {
      if (compare.length) await side(mine, compare);
      else if (item && item.kind === "run") await run(mine, item);
      else if (open) await subject(mine, open);
      else welcome();
    } catch (error) {
      if (shown === mine) fail(error);
    }
    mine.there = true;
  }
  const into = (mine, ...children) => {
    if (shown !== mine) return false;
    mine.there = true;
    view.replaceChildren(...children.flat().filter(Boolean));
    scrollTo(0, 0);
    document.querySelectorAll("main .chart").forEach((box) => box.redraw());
    return true;
  };
  function welcome() {
    const link = items.find((item) => item.kind === "problem" && !item.round) || items.find((item) => item.kind !== "broken");
    view.replaceChildren(
      make("h1", {}, "Bits by layer, live"),
      make("p", {}, "Open a problem and move its bound: the allocation is solved again, exactly, as the slider moves. Pin layers or single groups, and see what that costs. Open an allocation to change it, or a run to see its rounds; tick several to compare them."),
      link ? make("p", {}, make("a", { href: "#open=" + link.key }, `Open ${link.path}`)) : make("p", { class: "soft" }, "Nothing in this folder can be opened."),
    );
  }
  addEventListener("hashchange", () => { route(); fold(); });

  // -- parts ---------------------------------------------------------------------------------------------------------

  function chart(figure, pick) {
    const box = make("div", { class: "chart" });
    box.redraw = () => { if (box.figure.series.length) charts.draw(box, box.figure, pick); };
    box.figure = figure;
    return box;
  }
  // A table; a heading with ">" is set flush right, one with "~" is left out on a phone. Cells are text or elements.
  function table(label, heads, rows) {
    const classes = heads.map((head) => (head.startsWith(">") ? "n" : "") + (/^>?~/.test(head) ? " wide" : ""));
    const body = make("tbody", {}, rows.map((row) => (row instanceof Element ? row : make("tr", {}, row.map((cell, k) => (cell instanceof Element && cell.tagName === "TD" ? cell : make("td", { class: classes[k] }, cell)))))));
    const head = make("thead", {}, make("tr", {}, heads.map((name, k) => make("th", { scope: "col", class: classes[k] }, name.replace(/^[>~]+/, "")))));
    return make("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": label }, make("table", {}, head, body));
  }
  function track(kind) {
    const fill = make("i"), bar = make("span", { class: "track " + kind }, fill), shares = make("span", { class: "track", role: "img" });
    const cell = make("td", { class: "bar" }, bar, shares);
    cell.set = (bits, parts, most) => {
      fill.style.width = `${(100 * bits) / most}%`;
      shares.hidden = parts.length < 2;
      shares.style.display = parts.length < 2 ? "none" : "";
      shares.replaceChildren(...(parts.length < 2 ? [] : parts.map(([level, share]) => {
        const part = make("i", { title: `${brief(level)} bits: ${percent(share)}` });
        part.style.width = `${100 * share}%`;
        part.style.background = `color-mix(in srgb, rgb(var(--shade1)) ${Math.round((100 * level) / most)}%, rgb(var(--shade0)))`;
        return part;
      })));
      shares.setAttribute("aria-label", parts.map(([level, share]) => `${brief(level)} bits ${percent(share)}`).join(", "));
    };
    return cell;
  }

  // -- a problem or an allocation ------------------------------------------------------------------------------------

  // From so many groups on the hull takes seconds: the slider does not wait for it, and pins do not move it.
  const STEPS = 1000, MOST_ROWS = 300, MANY = 150000;

  async function subject(mine, key) {
    const told = await ask("subjects/" + key);
    if (shown !== mine) return;
    const pins = new Map(); // "layer" or "layer/group" to what it takes
    let limit = "damage", minimize = "", value = null, curve = null, answer = null;
    const revised = () => ({ minimize, pins: [...pins].map(([name, to]) => { const [layer, group] = name.split("/").map(Number); return group === undefined ? { layer, to } : { layer, group, to }; }) });

    // Controls.
    const slider = make("input", { type: "range", id: "bound", min: 0, max: STEPS, step: 1, value: 0 });
    const exact = make("input", { type: "text", id: "limit", inputMode: "decimal", autocomplete: "off", "aria-label": "limit as a number" });
    const took = make("output", { id: "took" });
    const label = make("label", { htmlFor: "bound" });
    const kinds = ["damage", "cost"].map((kind) => make("label", {}, make("input", { type: "radio", name: "kind", value: kind, checked: kind === limit, onchange: () => { limit = kind; begin(); } }), kind === "damage" ? `least cost under a bound on the damage` : `least damage under a budget`));
    const costs = make("select", { id: "cost", onchange: () => { minimize = costs.value; sweep().then(begin).then(late).catch(trouble); } }, told.costs.map((cost, k) => make("option", { value: cost.name === told.objective ? "" : cost.name, selected: cost.name === told.objective }, cost.unit ? `${cost.name} [${cost.unit}]` : cost.name)));
    const again = make("button", { type: "button", onclick: () => { pins.clear(); selects(); reset(); sweep().then(start).then(late).catch(trouble); } }, "Start again");
    const file = make("a", { id: "file", hidden: true }, "Download this allocation");
    const chips = make("div", { class: "chips", "aria-label": "Pins" });
    const error = make("p", { class: "error", role: "alert", hidden: true });

    // Results.
    const headline = make("p", { id: "headline" }), tiles = make("dl", { class: "tiles" }), notes = make("div");
    const frontier = chart({ key: "frontier", title: "Cost against damage", x: "damage", y: "cost", xLog: true, yLog: false, ticks: [], series: [] }, (x, y) => { value = limit === "damage" ? x : y * curve.factor; place(); request(); });
    const bits = chart({ key: "bits", title: "Bits by layer", x: "layer", y: "bits", xLog: false, yLog: false, ticks: [], series: [] });
    const hull = make("figcaption"), depth = make("figcaption");

    const trouble = (problem) => { error.textContent = problem.message; error.hidden = false; };
    const calm = () => { error.hidden = true; };
    const range = () => {
      let [low, high] = curve.range[limit];
      if (limit === "damage" && !(low > 0)) low = Math.min(...curve.figure.series.flatMap((s) => s.x).filter((v) => v > 0), high || 1) / 2;
      return high > low ? [low, high] : [low, low * 2 || 1];
    };
    function place() { // the slider and the number, where the value is
      const [low, high] = range();
      const part = limit === "damage" ? Math.log(Math.max(value, low) / low) / Math.log(high / low) : (value - low) / (high - low);
      slider.value = Math.round(STEPS * Math.min(1, Math.max(0, part)));
      const unit = limit === "cost" ? curve.unit : "", said = value / (limit === "cost" ? curve.factor : 1);
      exact.value = brief(said, 6);
      slider.setAttribute("aria-valuetext", `${brief(said)} ${unit}`.trim());
      label.textContent = limit === "damage" ? `Largest ${told.damage}` : `Largest ${curve.cost}${unit ? ` [${unit}]` : ""}`;
      marks();
    }
    slider.addEventListener("input", () => {
      const [low, high] = range(), part = slider.value / STEPS;
      // The ends are taken as they are: a rounded one might be out of reach.
      value = part === 0 ? low : part === 1 ? high : limit === "damage" ? low * (high / low) ** part : low + part * (high - low);
      if (limit === "cost" && curve.whole && part > 0) value = Math.floor(value);
      place(); request();
    });
    exact.addEventListener("change", () => {
      const given = Number(exact.value.trim().replace(/,/g, ""));
      if (!Number.isFinite(given) || given < 0 || exact.value.trim() === "") { trouble(new Error(`The limit must be a number >= 0, not ${exact.value.trim() || "nothing"}.`)); return; }
      value = limit === "cost" ? given * curve.factor : given;
      place(); request();
    });
    function reset() { // the question of the file
      const by = told.answer && told.costs.some((cost) => cost.name === told.answer.cost) ? told.answer.cost : told.objective;
      minimize = by === told.objective ? "" : by;
      costs.value = minimize;
      limit = told.answer && told.answer.minimizes === "damage" ? "cost" : "damage";
      kinds[limit === "damage" ? 0 : 1].firstChild.checked = true;
    }
    function start() { // its answer, or the first one
      if (!told.answer || !told.answer.layers) { answer = null; begin(); return; }
      value = limit === "damage" ? told.answer.bound ?? told.answer.damageValue : told.answer.budget ?? told.answer.costValue;
      number++; last = number; // what is on its way is of another question
      place(); calm(); show(told.answer);
    }
    function begin() {
      value = !answer || answer.cost !== curve.cost ? curve.start[limit] : limit === "damage" ? answer.damageValue : answer.costValue;
      place(); request();
    }

    // Asking: the newest question wins. While an answer is on its way for a moment only, the next one waits for it.
    let number = 0, last = 0, flying = 0, sent = 0, waiting = false;
    function request() {
      number++;
      if (flying && performance.now() - sent < 250) {
        if (!waiting) setTimeout(() => { if (waiting) send(); }, 250);
        waiting = true;
      } else send();
    }
    async function send(tries = 0) {
      if (shown !== mine) return;
      const own = number;
      waiting = false; flying++; sent = performance.now();
      const began = sent;
      setTimeout(() => { if (own === number && own > last) took.textContent = "\u2026"; }, 300);
      try {
        const found = await ask(`subjects/${key}/solve`, { ...revised(), limit, value });
        if (own >= last && shown === mine) { last = own; calm(); show(found, performance.now() - began); }
      } catch (problem) {
        if (own === number && shown === mine) {
          if (problem.status === 409 && tries < 5) setTimeout(() => { if (own === number) send(tries + 1); }, 150);
          else trouble(problem);
        }
      } finally {
        flying--;
        if (waiting && !flying) send();
      }
    }
    async function sweep(whole = told.groups < MANY) {
      const wanted = revised(), text = JSON.stringify(wanted);
      const found = await ask(`subjects/${key}/curve`, { ...wanted, hull: whole });
      if (shown !== mine || text !== JSON.stringify(revised())) return;
      curve = found;
      frontier.figure = curve.figure;
      hull.textContent = !whole ? "The hull is being worked out." : curve.breakpoints ? `${count(curve.breakpoints, "breakpoint")} of the convex hull, each optimal at its own damage. Click to move the limit there.` : curve.reason;
      frontier.redraw(); marks();
    }
    const late = async () => { if (told.groups >= MANY && !pins.size) await sweep(true); };
    function marks() {
      if (!frontier.frame || !curve) return;
      const points = [limit === "damage" ? { x: value } : { y: value / curve.factor }];
      if (told.answer && told.answer.costValue !== undefined && told.answer.cost === curve.cost) points.push({ x: told.answer.damageValue, y: told.answer.costValue / curve.factor, colour: "var(--c2)", text: answer === told.answer ? "" : "the file's" });
      if (answer && answer.costValue !== undefined && answer.cost === curve.cost) points.push({ x: answer.damageValue, y: answer.costValue / curve.factor, text: answer === told.answer ? "the file's" : "this one" });
      charts.mark(frontier, points);
    }

    // What was found.
    const rows = told.layers.map((layer, k) => row(layer, k));
    function row(layer, k) {
      const cell = { layer, bar: track(layer.kind), mean: make("td", { class: "n" }), was: make("td", { class: "n wide was" }), cost: make("td", { class: "n wide" }), damage: make("td", { class: "n" }) };
      const kind = layer.kind === "weight" ? "" : make("small", { class: "soft" }, " activation");
      const held = layer.held ? make("small", { class: "soft" }, layer.held === layer.groups ? " pinned in the file" : ` ${layer.held} pinned in the file`) : "";
      cell.open = layer.groups > 1 ? make("button", { type: "button", title: `Show its ${count(layer.groups, "group")}`, onclick: () => unfold(cell, k) }, breakable(layer.name)) : null;
      if (cell.open) cell.open.setAttribute("aria-expanded", "false");
      cell.pin = choice(`pin ${layer.name}${layer.kind === "weight" ? "" : " activation"}`, layer.options, (to) => pin(k, undefined, to));
      const none = told.mean ? [cell.was] : [];
      cell.tr = make("tr", {}, make("td", { class: "name" }, cell.open || breakable(layer.name), kind, held), cell.bar, cell.mean, none, make("td", { class: "n wide" }, layer.groups.toLocaleString("en")), make("td", { class: "n wide" }, layer.size.toLocaleString("en")), cell.cost, cell.damage, make("td", {}, cell.pin));
      return cell;
    }
    function choice(name, options, changed) {
      const select = make("select", { "aria-label": name, onchange: () => changed(select.value) }, make("option", { value: "" }, "free"), options.map((one) => make("option", { value: one }, one)), make("option", { value: "some", disabled: true, hidden: true }, "some"));
      return select;
    }
    function pin(layer, group, to) {
      const name = group === undefined ? String(layer) : `${layer}/${group}`;
      if (group === undefined) for (const other of [...pins.keys()]) if (other.startsWith(layer + "/")) pins.delete(other);
      if (group !== undefined) pins.delete(String(layer));
      to === "" ? pins.delete(name) : pins.set(name, to);
      pinned();
    }
    function pinned() {
      selects(); request();
      if (told.groups < MANY) sweep().catch(trouble);
      else if (curve.breakpoints) hull.textContent = `${count(curve.breakpoints, "breakpoint")} of the convex hull as it is without pins.`;
    }
    function selects() {
      rows.forEach((cell, k) => {
        const some = [...pins.keys()].some((name) => name.startsWith(k + "/"));
        cell.pin.value = pins.get(String(k)) || (some ? "some" : "");
        cell.tr.classList.toggle("pinned", cell.pin.value !== "");
      });
      chips.replaceChildren(...[...pins].map(([name, to]) => {
        const [layer, group] = name.split("/").map(Number), of = told.layers[layer];
        const text = group === undefined ? of.name : `${of.name}, group ${group}`;
        return make("button", { type: "button", title: "Let it go", "aria-label": `let ${text} go, pinned to ${to}`, onclick: () => pin(layer, group, "") }, `${text} = ${to} \u00d7`);
      }));
      if (pins.size > 1) chips.append(make("button", { type: "button", onclick: () => { pins.clear(); pinned(); } }, "Let all go"));
    }
    function show(found, waited) {
      const infeasible = found.layers === undefined;
      if (!infeasible) answer = found;
      took.textContent = waited === undefined || found === told.answer ? "" : `${Math.max(1, Math.round(1000 * found.seconds))} ms`;
      took.title = waited === undefined ? "" : `${Math.round(waited)} ms with the way there and back`;
      headline.replaceChildren(make("span", { class: `badge ${found.status}` }, found.status), " ", said(found));
      tell(infeasible ? `${found.status}. ${found.diagnosis}` : `${found.status}, ${found.costText}, damage ${brief(found.damageValue)}`);
      for (const part of [tiles, grid, bits, notes]) part.classList.toggle("stale", infeasible);
      if (infeasible) { file.hidden = true; marks(); return; }
      file.hidden = false; file.href = `api/answers/${found.key}/file`;
      tiles.replaceChildren(...tilesOf(found).map(([name, text, more]) => make("div", {}, make("dt", {}, name), make("dd", {}, text, more ? make("small", {}, more) : ""))));
      notes.replaceChildren(...found.notes.map((line) => make("p", { class: "soft" }, line)));
      rows.forEach((cell, k) => fill(cell, found.layers[k], k));
      bars(found); collapse(found);
      marks();
    }
    function said(found) {
      if (found.layers === undefined) return found.diagnosis || `No answer was found (${found.stop}).`;
      if (found.claimed) return "As the file states it; impq-opt verify checks what is proved.";
      const limits = [found.bound === null ? "" : `damage at most ${brief(found.bound)}`, ...found.limits].filter(Boolean).join(" and ");
      return `Least ${found.minimizes === "cost" ? found.cost : "damage"} with ${limits}.`;
    }
    function tilesOf(found) {
      const made = [[found.cost, found.costText, ""], ["damage", brief(found.damageValue), found.used === null ? "" : `${(100 * found.used).toFixed(2)} % of ${brief(found.bound)}`]];
      made.push(["gap", found.gap === null ? "unknown" : found.gap === 0 ? "0" : percent(found.gap), found.lower ? `lower bound ${found.lower}` : ""]);
      if (found.weightBits !== null) made.push(["bits a weight", found.weightBits.toFixed(3), found.ratio ? `${found.ratio.toFixed(2)} times smaller than 16 bits` : ""]);
      if (found.activationBits !== null) made.push(["bits an activation", found.activationBits.toFixed(3), ""]);
      if (found.whole) made.push(["whole network", found.whole, `${found.wholeBits.toFixed(3)} bits a parameter`]);
      return made;
    }
    function fill(cell, layer, k) {
      cell.bar.set(layer.bits, layer.shares, told.most);
      cell.mean.textContent = brief(layer.bits);
      cell.cost.textContent = percent(layer.cost);
      cell.damage.textContent = percent(layer.damage);
      if (told.mean) {
        const change = layer.bits - told.mean[k], same = Math.abs(change) < 5e-4;
        cell.was.replaceChildren(brief(told.mean[k]), same ? "" : make("span", { class: change > 0 ? "up" : "down" }, ` ${change > 0 ? "+" : "\u2212"}${brief(Math.abs(change), 3)}`));
      }
      if (cell.inner) groups(cell, k, 0);
    }
    // Activations that all take the same say it once: a line instead of bars and rows, unless somebody looks at them.
    let every = false;
    const spread = make("button", { type: "button", hidden: true, onclick: () => { every = true; collapse(answer); } }, "Show the activations");
    const tensors = told.layers.map((_, k) => k).filter((k) => told.layers[k].kind === "activation");
    function alike(found) {
      const same = (values) => values.every((v) => v === values[0]);
      return tensors.length > 1 && tensors.length < told.layers.length && tensors.every((k) => found.layers[k].shares.length === 1) && same(tensors.map((k) => found.layers[k].bits)) && (!told.mean || same(tensors.map((k) => told.mean[k])));
    }
    function collapse(found) {
      const folded = !every && alike(found);
      for (const k of tensors) rows[k].tr.hidden = folded && rows[k].pin.value === "" && !rows[k].inner;
      spread.hidden = !folded;
      if (folded) spread.textContent = `Show the ${count(tensors.length, "activation")}, all at ${brief(found.layers[tensors[0]].bits)} bits`;
    }
    function bars(found) {
      const constant = alike(found), of = (kind) => constant && kind === "activation" ? [] : told.layers.map((layer, k) => k).filter((k) => told.layers[k].kind === kind);
      const series = [["weights", "weight"], ["activations", "activation"]].map(([name, kind]) => ({ name, style: "bars", x: of(kind), y: of(kind).map((k) => found.layers[k].bits), labels: of(kind).map((k) => told.layers[k].name) })).filter((s) => s.x.length);
      const shownHere = [...of("weight"), ...of("activation")].sort((a, b) => a - b);
      if (told.mean && found !== told.answer) series.push({ name: told.run ? `round ${told.run.round}` : "the file's", style: "dash", colour: "var(--c2)", x: shownHere, y: shownHere.map((k) => told.mean[k]), labels: shownHere.map((k) => `${told.layers[k].name} before`) });
      const place = new Map(shownHere.map((k, at) => [k, at]));
      for (const s of series) s.x = s.x.map((k) => place.get(k));
      bits.figure = { ...bits.figure, ticks: shownHere.map((k) => told.layers[k].name), series };
      depth.textContent = `Mean precision of each layer's elements, first layer left.${constant ? ` All ${count(tensors.length, "activation")} get ${brief(found.layers[tensors[0]].bits)} bits.` : ""}`;
      if (bits.isConnected) bits.redraw();
    }

    // Kernels of a layer, on demand.
    function unfold(cell, k) {
      if (cell.inner) { cell.inner.remove(); cell.inner = null; cell.open.setAttribute("aria-expanded", "false"); return; }
      cell.inner = make("tr", { class: "inner" }, make("td", { colSpan: 9 }, make("p", { class: "soft" }, "Reading its groups.")));
      cell.tr.after(cell.inner);
      cell.open.setAttribute("aria-expanded", "true");
      groups(cell, k, 0);
    }
    async function groups(cell, k, first) {
      const inner = cell.inner, of = answer;
      if (!of || !inner) return;
      let found;
      try { found = await ask(`answers/${of.key}/groups?layer=${k}&first=${first}`); } catch (problem) { if (answer === of) trouble(problem); return; }
      if (cell.inner !== inner || answer !== of) return;
      const made = found.groups.map((group) => {
        const bar = track(cell.layer.kind);
        bar.set(group.bits, [], told.most);
        const select = choice(`pin ${group.name}`, group.options, (to) => pin(k, group.place, to));
        select.value = pins.get(`${k}/${group.place}`) || "";
        return make("tr", {}, make("td", { class: "name" }, breakable(group.name), group.pinned ? make("small", { class: "soft" }, " pinned") : ""), bar, make("td", { class: "n" }, group.label), make("td", { class: "n wide" }, group.size.toLocaleString("en")), make("td", { class: "n" }, percent(group.damage)), make("td", {}, select));
      });
      const before = first ? [...inner.querySelectorAll("tbody tr")] : [];
      const shownRows = [...before, ...made];
      const kept = inner.querySelector(".scroll"), top = kept ? kept.scrollTop : 0;
      const inside = table(`Groups of ${cell.layer.name}`, ["group", "bits", ">", ">~elements", ">of damage", "pin"], shownRows);
      const rest = found.total - shownRows.length;
      inner.firstChild.replaceChildren(inside, rest > 0 ? make("button", { type: "button", onclick: () => groups(cell, k, shownRows.length) }, `Show more of ${found.total.toLocaleString("en")}`) : "");
      inside.scrollTop = top;
    }

    // The page.
    const heads = ["layer", "bits", ">mean", ...(told.mean ? [told.run ? `>~round ${told.run.round}` : ">~file"] : []), ">~groups", ">~elements", ">~of cost", ">of damage", "pin"];
    const grid = table("Bits by layer", heads, rows.slice(0, MOST_ROWS).map((cell) => cell.tr));
    const more = rows.length > MOST_ROWS ? make("button", { type: "button", onclick: () => { grid.querySelector("tbody").append(...rows.slice(MOST_ROWS).map((cell) => cell.tr)); more.remove(); } }, `Show all ${count(rows.length, "layer")}`) : "";
    const what = [told.title, `${count(told.groups, "group")} in ${count(told.layers.length, "layer")}`, told.ties ? count(told.ties, "tie") : "", told.revised ? "as revised by the allocation's file" : "", ...told.budgets].filter(Boolean).join(" \u00b7 ");
    const facts = make("details", {}, make("summary", {}, "Where the numbers come from"), make("dl", { class: "facts" }, told.facts.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)])));
    const limits = make("fieldset", {}, make("legend", { class: "hidden" }, "What is limited"), kinds);
    const questions = make("section", { "aria-label": "Question" }, make("div", { class: "ask" },
      make("div", { class: "row" }, limits, told.costs.length > 1 ? make("label", { htmlFor: "cost" }, "cost ", costs) : ""),
      make("div", {}, label, make("div", { class: "slide" }, slider, exact, took)), make("div", { class: "row" }, again, file), chips), error, headline, tiles, notes);
    into(mine,
      make("h1", {}, told.path), make("p", { class: "soft" }, what),
      questions,
      make("div", { class: "side" }, make("section", {}, make("h2", {}, "Cost against damage"), make("figure", {}, frontier, hull)), make("section", {}, make("h2", {}, "Bits by layer"), make("figure", {}, bits, depth))),
      make("section", {}, make("h2", {}, "Layers"), make("p", { class: "soft" }, "Each bar is as long as the mean precision; where a layer holds several precisions the second line shows their shares, darker for more bits."), grid, make("div", { class: "row" }, more, spread)),
      make("section", {}, facts));
    document.title = `${told.path} - impq-opt`;
    reset();
    if (told.answer) show(told.answer);
    try { await sweep(); } catch (problem) { trouble(problem); return; }
    if (shown !== mine) return;
    start();
    late().catch(trouble);
  }

  // -- a run ---------------------------------------------------------------------------------------------------------

  const share = (v) => (v === null || v === undefined ? "-" : `${(100 * v).toFixed(2)} %`);
  function roundsTable(told, several) {
    const heads = [...(several ? ["run"] : []), ">round", "strategy", "~status", ">bits a weight", ">~bits an activation", ">~damage", ">validation", ">~test"];
    return table("Rounds", heads, told.rows.map((one) => [...(several ? [one.run] : []), one.problem ? make("a", { href: "#open=" + one.problem, title: "Open the problem of this round" }, String(one.round)) : String(one.round), one.strategy, one.status, brief(one.weightBits), brief(one.activationBits), brief(one.damage), share(one.validation), share(one.test)]));
  }
  async function run(mine, item) {
    const told = await ask("runs/" + item.key);
    const box = chart(told.figure);
    into(mine, make("h1", {}, item.path), make("p", { class: "soft" }, factsOf(item)),
      make("section", {}, make("h2", {}, told.figure.title), make("figure", {}, box, make("figcaption", {}, "Each point is a round of allocation and retraining; bits fall from right to left."))),
      make("section", {}, make("h2", {}, "Rounds"), make("p", { class: "soft" }, "The number of a round opens the problem that was measured for it."), roundsTable(told, false)));
    document.title = `${item.path} - impq-opt`;
  }

  // -- side by side --------------------------------------------------------------------------------------------------

  async function side(mine, keys) {
    for (const key of keys) chosen.add(key);
    list();
    const told = await ask("compare?keys=" + keys.join(","));
    const parts = told.figures.map((figure) => make("section", {}, make("h2", {}, "Cost against damage"), make("figure", {}, chart(figure), make("figcaption", {}, figure.series.length > 1 ? "Lines are the convex hulls of problems, rings are allocations." : `The convex hull of ${figure.series[0].name}.`))));
    for (const [name, reason] of told.without) parts.push(make("p", { class: "soft" }, `${name} has no hull: ${reason}`));
    if (told.allocations.length) {
      const heads = ["allocation", "status", ">cost", ">damage", ">~bound", ">bits a weight", ">~bits an activation", ">~ratio", ">~whole network"];
      parts.push(make("section", {}, make("h2", {}, "Allocations"), table("Allocations", heads, told.allocations.map((one) => [one.path, one.status, one.cost, brief(one.damage), brief(one.bound), brief(one.weightBits), brief(one.activationBits), brief(one.ratio, 3), one.whole || "-"]))));
      parts.push(...told.layers.map(matrix));
    }
    if (told.rounds) parts.push(make("section", {}, make("h2", {}, told.rounds.figure.title), make("figure", {}, chart(told.rounds.figure)), roundsTable(told.rounds, told.rounds.runs.length > 1)));
    into(mine, make("h1", {}, `${count(keys.length, "item")} side by side`), parts);
    document.title = "Side by side - impq-opt";
  }
  function matrix(told) {
    const names = told.names;
    const differs = (bits) => new Set(bits.map((b) => b.toFixed(4))).size > 1;
    const rows = told.rows.map((layer) => {
      const cells = layer.bits.map((b) => { const cell = make("td", { class: "cell" }, brief(b)); cell.style.setProperty("--part", b / told.most); return cell; });
      const tr = make("tr", {}, make("td", { class: "name" }, breakable(layer.name), layer.kind === "weight" ? "" : make("small", { class: "soft" }, " activation")), cells);
      tr.dataset.differs = differs(layer.bits) ? "1" : "";
      return tr;
    });
    const equal = rows.filter((tr) => !tr.dataset.differs).length;
    const only = make("input", { type: "checkbox", onchange: () => rows.forEach((tr) => { tr.hidden = only.checked && !tr.dataset.differs; }) });
    const made = table("Bits by layer", ["layer", ...names.map((name) => ">" + name)], rows);
    made.querySelectorAll("th.n").forEach((th) => th.classList.add("path"));
    return make("section", {}, make("h2", {}, "Mean bits by layer"), names.length > 1 && equal ? make("p", {}, make("label", {}, only, ` leave out the ${count(equal, "layer")} that ${equal === 1 ? "is" : "are"} equal`)) : "", made);
  }

  // -- going on ------------------------------------------------------------------------------------------------------

  const redraw = () => document.querySelectorAll("main .chart").forEach((box) => box.redraw());
  let last = document.documentElement.clientWidth, timer;
  addEventListener("resize", () => {
    if (document.documentElement.clientWidth === last) return;
    last = document.documentElement.clientWidth;
    clearTimeout(timer); timer = setTimeout(redraw, 80);
  });
  // Beside what is shown the list is always open; above it, it folds.
  const beside = matchMedia("(min-width: 60.01rem)"), fold = () => {
    get("list").open = beside.matches || !location.hash;
    get("list").firstElementChild.tabIndex = beside.matches ? -1 : 0;
  };
  beside.addEventListener("change", fold);
  fold();
  look().then((found) => { if (found) route(); });
  setInterval(() => { if (document.visibilityState === "visible") look(); }, 4000);
})();
