// Sorts and filters the tables of a report and draws its curves. Text from runs is only ever set as text.
"use strict";
(() => {
  const WIDTH = 640, HEIGHT = 300, LEFT = 52, RIGHT = 12, TOP = 10, BOTTOM = 38;
  const DASHES = ["", "7 4", "2 3", "10 3 2 3"], COLOURS = 8, MOST_LINES = 14, MOST_NAMED = 24;
  const TITLES = {
    val_accuracy: "Validation accuracy, %", val_loss: "Validation loss",
    train_accuracy: "Training accuracy, %", train_loss: "Training loss",
  };
  const tables = JSON.parse(document.getElementById("curves").textContent);

  const make = (name, attributes, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const draw = (parent, name, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  };
  const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
  const digits = (value) => (Math.abs(value) >= 10 ? value.toFixed(2) : value.toPrecision(3));

  // Mean and sample standard deviation by epoch, of the runs that count and reached it.
  const statistics = (group, metric) => {
    const byEpoch = new Map();
    for (const run of group.runs) {
      if (!run.averaged) continue;
      run.epochs.forEach((epoch, i) => {
        if (run[metric][i] === null) return;
        if (!byEpoch.has(epoch)) byEpoch.set(epoch, []);
        byEpoch.get(epoch).push(run[metric][i]);
      });
    }
    return [...byEpoch].sort((a, b) => a[0] - b[0]).map(([epoch, values]) => {
      const n = values.length, mean = values.reduce((a, b) => a + b, 0) / n;
      const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
      return { epoch, mean, n, deviation: n > 1 ? Math.sqrt(squares / (n - 1)) : 0 };
    });
  };

  const ticks = (low, high, count) => {
    const rough = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * ([1, 2, 2.5, 5].find((factor) => factor * power >= rough) || 10), found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(+(i * step).toPrecision(12));
    return found;
  };
  const logTicks = (low, high) => {
    const found = [], factors = high / low > 100 ? [1] : high / low > 8 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 8];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      for (const factor of factors) {
        const value = factor * 10 ** power;
        if (value >= low * 0.999 && value <= high * 1.001) found.push(+value.toPrecision(6));
      }
    return found;
  };
  const number = (value) => (value !== 0 && (Math.abs(value) < 0.001 || Math.abs(value) >= 1e5)
    ? value.toExponential(0) : String(+value.toPrecision(4)));

  const panel = (state, metric) => {
    const figure = make("figure", { class: "panel" }, make("figcaption", {}));
    figure.firstChild.textContent = TITLES[metric];
    const svg = draw(figure, "svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`, tabindex: "0", role: "img",
      "aria-label": `${TITLES[metric]} by epoch. Arrow keys move through the epochs, Escape leaves.`,
    });
    const tip = make("div", { class: "tip", role: "status" });
    tip.hidden = true;
    figure.append(tip);
    const own = { metric, figure, svg, tip };
    const epochs = () => [...new Set(own.series.flatMap((s) => s.points.map((p) => p.epoch)))].sort((a, b) => a - b);
    svg.addEventListener("pointermove", (event) => {
      if (!own.x) return;
      const box = svg.getBoundingClientRect(), at = ((event.clientX - box.left) / box.width) * WIDTH;
      const all = epochs();
      if (all.length) point(state, own, all.reduce((a, b) => (Math.abs(own.x(b) - at) < Math.abs(own.x(a) - at) ? b : a)));
    });
    svg.addEventListener("pointerleave", () => point(state, own, null));
    svg.addEventListener("blur", () => point(state, own, null));
    svg.addEventListener("keydown", (event) => {
      const all = epochs(), now = all.indexOf(state.epoch), last = all.length - 1;
      const to = { ArrowRight: Math.min(now + 1, last), ArrowLeft: now < 0 ? last : Math.max(now - 1, 0), Home: 0, End: last }[event.key];
      if (event.key === "Escape") point(state, own, null);
      else if (to !== undefined && last >= 0) { event.preventDefault(); point(state, own, all[to]); }
    });
    return own;
  };

  const plot = (state, own) => {
    const { svg, metric } = own, log = state.log.checked && metric.endsWith("loss");
    svg.replaceChildren();
    own.tip.hidden = true;
    own.series = state.picked().map((index) => ({ index, group: state.data.groups[index], points: state.statistics(index, metric).filter((p) => state.drawn(p.epoch)) }));
    const singles = state.single.checked
      ? own.series.flatMap(({ index, group }) => group.runs.map((run) => ({ index, run }))) : [];
    const values = own.series.flatMap((s) => s.points.flatMap((p) => [p.mean - p.deviation, p.mean + p.deviation, p.mean]))
      .concat(singles.flatMap(({ run }) => run[metric].filter((v, i) => v !== null && state.drawn(run.epochs[i])))).filter((v) => !log || v > 0);
    own.x = null;
    if (!values.length) {
      draw(svg, "text", { x: WIDTH / 2, y: HEIGHT / 2, "text-anchor": "middle" },
        own.series.length || singles.length ? "nothing was recorded" : "no curves chosen: tick rows of the table");
      return;
    }
    const reached = own.series.flatMap((s) => s.points.map((p) => p.epoch)).concat(singles.flatMap(({ run }) => run.epochs.filter(state.drawn)));
    const first = reached.reduce((a, b) => Math.min(a, b)), last = reached.reduce((a, b) => Math.max(a, b));
    let low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
    if (metric.endsWith("accuracy")) { low = Math.max(low, 0); high = Math.min(high, 100); }
    else if (!log) low = Math.max(low, 0);
    if (low === high) { low = log ? low / 2 : low - 0.5; high = log ? high * 2 : high + 0.5; }
    const scale = log ? Math.log : (v) => v, margin = (scale(high) - scale(low)) * 0.03;
    const from = scale(low) - margin, to = scale(high) + margin;
    own.x = (epoch) => LEFT + ((epoch - first) / (last - first || 1)) * (WIDTH - LEFT - RIGHT);
    own.y = (value) => TOP + ((to - (log && value <= 0 ? from : Math.max(Math.min(scale(value), to), from))) / (to - from)) * (HEIGHT - TOP - BOTTOM);
    for (const value of log ? logTicks(low, high) : ticks(low, high, 5)) {
      draw(svg, "line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: own.y(value), y2: own.y(value) });
      draw(svg, "text", { x: LEFT - 7, y: own.y(value) + 4, "text-anchor": "end" }, number(value));
    }
    for (const epoch of ticks(first, last, 8).filter(Number.isInteger))
      draw(svg, "text", { x: own.x(epoch), y: HEIGHT - 20, "text-anchor": "middle" }, String(epoch));
    draw(svg, "text", { x: WIDTH - RIGHT, y: HEIGHT - 4, "text-anchor": "end" }, "epoch");
    const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
    for (const { index, points } of own.series) {
      if (points.every((p) => p.n < 2)) continue;
      const edge = (sign) => points.map((p) => [own.x(p.epoch), own.y(p.mean + sign * p.deviation)]);
      draw(svg, "path", { class: `band ${state.colour(index)}`, d: `${path([...edge(1), ...edge(-1).reverse()])}Z` });
    }
    for (const { index, run } of singles) {
      const points = run.epochs.map((epoch, i) => [epoch, run[metric][i]]).filter(([e, v]) => v !== null && state.drawn(e));
      draw(svg, "path", { class: `run ${state.colour(index)}${run.averaged ? "" : " out"}`, d: path(points.map(([e, v]) => [own.x(e), own.y(v)])) });
    }
    for (const { index, points } of own.series) {
      const colour = state.colour(index);
      if (points.length === 1) draw(svg, "circle", { class: `dot ${colour}`, cx: own.x(points[0].epoch), cy: own.y(points[0].mean), r: 3.5 });
      draw(svg, "path", {
        class: `curve ${colour}`, d: path(points.map((p) => [own.x(p.epoch), own.y(p.mean)])),
        "stroke-dasharray": state.dash(index),
      });
    }
    own.cross = draw(svg, "g", {});
  };

  // The values of one epoch: a line in every panel, the numbers in the one that is pointed at.
  const point = (state, at, epoch) => {
    state.epoch = epoch;
    for (const own of state.panels) {
      own.tip.hidden = own !== at || epoch === null;
      if (!own.x) { own.tip.hidden = true; continue; }
      own.cross.replaceChildren();
      if (epoch === null) continue;
      draw(own.cross, "line", { class: "cross", x1: own.x(epoch), x2: own.x(epoch), y1: TOP, y2: HEIGHT - BOTTOM });
      const found = own.series.flatMap(({ index, group, points }) => {
        const p = points.find((each) => each.epoch === epoch);
        return p ? [{ index, group, p }] : [];
      }).sort((a, b) => b.p.mean - a.p.mean);
      for (const { index, p } of found) draw(own.cross, "circle", { class: `dot ${state.colour(index)}`, cx: own.x(epoch), cy: own.y(p.mean), r: 3.5 });
      if (own !== at) continue;
      const lines = found.slice(0, MOST_LINES).map(({ index, group, p }) => {
        const line = make("div", { class: state.colour(index) }, make("span", { class: "key" }), make("span", { class: "name" }), make("span", { class: "value" }));
        line.children[1].textContent = group.label;
        line.children[2].textContent = digits(p.mean) + (p.n > 1 ? ` ± ${digits(p.deviation)}, n = ${p.n}` : "");
        return line;
      });
      const title = make("b", {});
      title.textContent = `epoch ${epoch}${found.length > MOST_LINES ? `, ${found.length - MOST_LINES} more below` : ""}`;
      own.tip.replaceChildren(title, ...lines);
      const share = own.x(epoch) / WIDTH, [side, at100] = share < 0.5 ? ["left", share * 100] : ["right", (1 - share) * 100];
      own.tip.style.cssText = `${side}:calc(${at100}% + 14px);top:36px;max-width:calc(${100 - at100}% - 22px)`;
    }
  };

  // Words must all occur; key=value, key<value and the like compare a column, found by the end of its name.
  const matcher = (text, keys) => {
    const terms = text.toLowerCase().split(/\s+/).filter(Boolean).map((term) => {
      const parts = /^([\w.]+)(<=|>=|!=|=|<|>)(.+)$/.exec(term);
      const column = parts ? keys.findIndex((key) => key.toLowerCase() === parts[1] || key.toLowerCase().endsWith(`.${parts[1]}`)) : -1;
      if (column < 0) return (row) => row.text.includes(term);
      const [, , sign, wanted] = parts;
      return (row) => {
        const own = row.cells[column].toLowerCase(), numbers = own !== "" && wanted !== "" && !isNaN(own) && !isNaN(wanted);
        const [a, b] = numbers ? [Number(own), Number(wanted)] : [own, wanted];
        if (sign === "=" || sign === "!=") return (a === b) === (sign === "=");
        return numbers && { "<": a < b, ">": a > b, "<=": a <= b, ">=": a >= b }[sign];
      };
    });
    return (row) => terms.every((matches) => matches(row));
  };

  const compare = (a, b) => {
    const numbers = a !== "" && b !== "" && !isNaN(a) && !isNaN(b);
    return numbers ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true });
  };

  const section = (element) => {
    const state = {
      data: tables[Number(element.dataset.table)], epoch: null, panels: [],
      single: element.querySelector(".single"), log: element.querySelector(".log"),
      late: element.querySelector(".late"),
    };
    const table = element.querySelector("table"), filter = element.querySelector('input[type="search"]');
    const heads = [...table.querySelectorAll("thead th[data-key]")].filter((th) => th.closest("table") === table);
    const rows = [...table.tBodies].map((body) => ({
      body, index: Number(body.dataset.group), text: body.textContent.toLowerCase(), box: body.querySelector(".draw"),
      swatch: body.querySelector(".swatch"),
      cells: [...body.querySelectorAll("tr.group td[data-v]")].map((td) => td.dataset.v),
    }));
    const byIndex = new Map(rows.map((row) => [row.index, row])), memory = new Map();
    state.statistics = (index, metric) => {
      const key = `${metric} ${index}`;
      if (!memory.has(key)) memory.set(key, statistics(state.data.groups[index], metric));
      return memory.get(key);
    };
    state.picked = () => rows.filter((row) => row.box.checked && !row.body.hidden).map((row) => row.index).sort((a, b) => a - b);
    // A curve keeps its colour while it is drawn; new ones take those that are free.
    const slots = new Map(), legend = element.querySelector(".legend");
    state.colour = (index) => `c${slots.get(index) % COLOURS}`;
    state.dash = (index) => DASHES[Math.floor(slots.get(index) / COLOURS) % DASHES.length];
    const recolour = () => {
      const picked = state.picked();
      for (const index of [...slots.keys()]) if (!picked.includes(index)) slots.delete(index);
      const taken = new Set(slots.values());
      let free = 0;
      for (const index of picked) {
        if (slots.has(index)) continue;
        while (taken.has(free)) free++;
        slots.set(index, free++);
      }
      rows.forEach((row) => { row.swatch.className = slots.has(row.index) ? `swatch ${state.colour(row.index)}` : "swatch"; });
      legend.replaceChildren(...picked.slice(0, MOST_NAMED).map((index) => {
        const entry = make("div", { class: state.colour(index) }), name = make("span", {});
        draw(draw(entry, "svg", { viewBox: "0 0 26 10", "aria-hidden": "true" }), "path", { class: "curve", d: "M0 5H26", "stroke-dasharray": state.dash(index) });
        name.textContent = state.data.groups[index].label;
        entry.append(name);
        return entry;
      }), ...(picked.length > MOST_NAMED ? [`and ${picked.length - MOST_NAMED} more`] : []));
    };
    let longest = 0;
    for (const group of state.data.groups) for (const run of group.runs) for (const epoch of run.epochs) longest = Math.max(longest, epoch);
    state.drawn = (epoch) => !state.late.checked || epoch >= longest / 2;
    const replot = () => { state.epoch = null; recolour(); state.panels.forEach((own) => plot(state, own)); };
    const best = (among) => among.filter((row) => state.data.groups[row.index].runs.some((run) => run.averaged))
      .sort((a, b) => (state.data.groups[b.index].score ?? -1) - (state.data.groups[a.index].score ?? -1)).slice(0, state.data.first);
    const pick = (chosen) => { rows.forEach((row) => { row.box.checked = chosen.includes(row); }); replot(); };
    const narrow = () => {
      const matches = matcher(filter.value, heads.map((th) => th.dataset.key));
      rows.forEach((row) => { row.body.hidden = !matches(row); });
      const shown = rows.filter((row) => !row.body.hidden).length;
      element.querySelector(".shown").textContent = shown === rows.length ? plural(shown, "group") : `${shown} of ${plural(rows.length, "group")}`;
      replot();
    };
    const sort = (column) => {
      const order = heads[column].getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      heads.forEach((th, i) => th.setAttribute("aria-sort", i === column ? order : "none"));
      const sign = order === "ascending" ? 1 : -1;
      rows.sort((a, b) => {
        const [x, y] = [a.cells[column], b.cells[column]];
        if ((x === "") !== (y === "")) return x === "" ? 1 : -1; // what is missing comes last either way
        return sign * compare(x, y) || a.index - b.index;
      });
      table.append(...rows.map((row) => row.body));
    };
    heads.forEach((th, i) => th.firstChild.addEventListener("click", () => sort(i)));
    filter.addEventListener("input", narrow);
    state.single.addEventListener("change", replot);
    state.log.addEventListener("change", replot);
    state.late.addEventListener("change", replot);
    table.addEventListener("change", (event) => { if (event.target.classList.contains("draw")) replot(); });
    table.addEventListener("click", (event) => {
      const button = event.target.closest(".more");
      if (!button) return;
      const runs = button.closest("tbody").querySelector("tr.runs");
      runs.hidden = !runs.hidden;
      button.setAttribute("aria-expanded", String(!runs.hidden));
    });
    element.querySelectorAll("[data-draw]").forEach((button) => button.addEventListener("click", () => {
      const visible = rows.filter((row) => !row.body.hidden);
      pick({ best: best(visible), all: visible, none: [] }[button.dataset.draw]);
    }));
    const recorded = state.data.metrics.filter((metric) =>
      state.data.groups.some((group) => group.runs.some((run) => run[metric].some((value) => value !== null))));
    state.panels = recorded.map((metric) => panel(state, metric));
    element.querySelector(".panels").append(...state.panels.map((own) => own.figure));
    const first = best(rows);
    rows.forEach((row) => { row.box.checked = first.includes(byIndex.get(row.index)); });
    narrow();
  };

  const theme = () => {
    const button = document.getElementById("theme"), names = ["system", "light", "dark"];
    const set = (name) => {
      if (name === "system") delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = name;
      button.lastElementChild.textContent = name[0].toUpperCase() + name.slice(1);
      button.setAttribute("aria-label", `Colour theme: ${name === "system" ? "as the system" : name}`);
      button.dataset.now = name;
    };
    let kept = null;
    try { kept = localStorage.getItem("resnet-report-theme"); } catch { /* pages from files may have no storage */ }
    set(names.includes(kept) ? kept : "system");
    button.addEventListener("click", () => {
      set(names[(names.indexOf(button.dataset.now) + 1) % names.length]);
      try { localStorage.setItem("resnet-report-theme", button.dataset.now); } catch { /* as above */ }
    });
  };

  theme();
  document.querySelectorAll("section[data-table]").forEach(section);
})();
