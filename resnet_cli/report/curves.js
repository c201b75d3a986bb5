// Draws the curves of a report as SVG: means with a band of one standard deviation, single runs, values by pointer and
// keys. page.js passes a `view`: the data, the selected groups, their colours and dashes, and the state of the controls.
"use strict";
const Curves = (() => {
  const WIDTH = 640, HEIGHT = 300, LEFT = 52, RIGHT = 12, TOP = 10, BOTTOM = 38; // of a panel and its margins, in SVG units
  const MAX_TIP_LINES = 14;
  const TITLES = {
    val_accuracy: "Validation accuracy, %", val_loss: "Validation loss",
    val_balanced_accuracy: "Validation balanced accuracy, %", val_map: "Validation mean average precision, %",
    val_macro_f1: "Validation macro F1, %",
    train_accuracy: "Training accuracy, %", train_loss: "Training loss",
  };

  const setAttributes = (element, attributes) => {
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const createElement = (tag, attributes, ...children) => {
    const element = setAttributes(document.createElement(tag), attributes);
    element.append(...children);
    return element;
  };
  const appendSvg = (parent, tag, attributes, text) => {
    const element = setAttributes(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  };
  // Not Math.min(...values): a spread of very many arguments overflows the stack.
  const minimum = (values) => values.reduce((a, b) => Math.min(a, b));
  const maximum = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);

  // Mean and sample standard deviation at each epoch, over the averaged runs that reached it; of a group without any,
  // over all its runs, which may be going on.
  const statisticsByEpoch = (group, metric) => {
    const byEpoch = new Map();
    const averaged = group.runs.filter((each) => each.averaged);
    for (const run of averaged.length ? averaged : group.runs) {
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

  const linearTicks = (low, high, count) => {
    const rough = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * ([1, 2, 2.5, 5].find((factor) => factor * power >= rough) || 10), ticks = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push(+(i * step).toPrecision(12));
    return ticks;
  };
  const logTicks = (low, high) => {
    const ticks = [], factors = high / low > 100 ? [1] : high / low > 8 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 8];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      for (const factor of factors) {
        const value = factor * 10 ** power;
        if (value >= low * 0.999 && value <= high * 1.001) ticks.push(+value.toPrecision(6));
      }
    return ticks;
  };
  const formatTick = (value) => (value !== 0 && (Math.abs(value) < 0.001 || Math.abs(value) >= 1e5)
    ? value.toExponential(0) : String(+value.toPrecision(4)));
  const formatValue = (value) => (Math.abs(value) >= 10 ? value.toFixed(2) : value.toPrecision(3));
  const svgPath = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

  const epochsOf = (panel) => [...new Set(panel.series.flatMap((s) => s.points.map((p) => p.epoch)))].sort((a, b) => a - b);

  const createPanel = (view, metric) => {
    const figure = createElement("figure", { class: "panel" }, createElement("figcaption", {}, TITLES[metric]));
    const svg = appendSvg(figure, "svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`, tabindex: "0", role: "img",
      "aria-label": `${TITLES[metric]} by epoch. Arrow keys move through the epochs, Escape leaves.`,
    });
    const tip = createElement("div", { class: "tip", role: "status" });
    tip.hidden = true;
    figure.append(tip);
    const panel = { metric, figure, svg, tip };
    svg.addEventListener("pointermove", (event) => {
      if (!panel.x) return;
      const box = svg.getBoundingClientRect(), x = ((event.clientX - box.left) / box.width) * WIDTH;
      const distance = (epoch) => Math.abs(panel.x(epoch) - x), epochs = epochsOf(panel);
      if (epochs.length) showEpoch(view, panel, epochs.reduce((a, b) => (distance(b) < distance(a) ? b : a)));
    });
    svg.addEventListener("pointerleave", () => showEpoch(view, panel, null));
    svg.addEventListener("blur", () => showEpoch(view, panel, null));
    svg.addEventListener("keydown", (event) => {
      const epochs = epochsOf(panel), current = epochs.indexOf(view.epoch), last = epochs.length - 1;
      const next = {
        ArrowRight: Math.min(current + 1, last), ArrowLeft: current < 0 ? last : Math.max(current - 1, 0), Home: 0, End: last,
      }[event.key];
      if (event.key === "Escape") showEpoch(view, panel, null);
      else if (next !== undefined && last >= 0) { event.preventDefault(); showEpoch(view, panel, epochs[next]); }
    });
    return panel;
  };

  // Sets panel.x and panel.y, which map an epoch and a value to SVG units, and draws grid and axis labels.
  const drawAxes = (panel, epochs, values, log) => {
    const { svg, metric } = panel;
    const first = minimum(epochs), last = maximum(epochs);
    let low = minimum(values), high = maximum(values);
    if (!metric.endsWith("loss")) { low = Math.max(low, 0); high = Math.min(high, 100); }
    else if (!log) low = Math.max(low, 0);
    if (low === high) { low = log ? low / 2 : low - 0.5; high = log ? high * 2 : high + 0.5; }
    const scale = log ? Math.log : (value) => value, margin = (scale(high) - scale(low)) * 0.03;
    const bottom = scale(low) - margin, top = scale(high) + margin;
    const clipped = (value) => (log && value <= 0 ? bottom : Math.max(Math.min(scale(value), top), bottom));
    panel.x = (epoch) => LEFT + ((epoch - first) / (last - first || 1)) * (WIDTH - LEFT - RIGHT);
    panel.y = (value) => TOP + ((top - clipped(value)) / (top - bottom)) * (HEIGHT - TOP - BOTTOM);
    for (const value of log ? logTicks(low, high) : linearTicks(low, high, 5)) {
      appendSvg(svg, "line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: panel.y(value), y2: panel.y(value) });
      appendSvg(svg, "text", { x: LEFT - 7, y: panel.y(value) + 4, "text-anchor": "end" }, formatTick(value));
    }
    for (const epoch of linearTicks(first, last, 8).filter(Number.isInteger))
      appendSvg(svg, "text", { x: panel.x(epoch), y: HEIGHT - 20, "text-anchor": "middle" }, String(epoch));
    appendSvg(svg, "text", { x: WIDTH - RIGHT, y: HEIGHT - 4, "text-anchor": "end" }, "epoch");
  };

  const drawBand = (view, panel, { index, points }) => {
    if (points.every((p) => p.n < 2)) return;
    const edge = (sign) => points.map((p) => [panel.x(p.epoch), panel.y(p.mean + sign * p.deviation)]);
    appendSvg(panel.svg, "path", { class: `band ${view.colour(index)}`, d: `${svgPath([...edge(1), ...edge(-1).reverse()])}Z` });
  };
  const drawRun = (view, panel, { index, run, points }) => appendSvg(panel.svg, "path", {
    class: `run ${view.colour(index)}${run.averaged ? "" : " out"}`,
    d: svgPath(points.map(([epoch, value]) => [panel.x(epoch), panel.y(value)])),
  });
  const drawMean = (view, panel, { index, points }) => {
    const colour = view.colour(index), coordinates = points.map((p) => [panel.x(p.epoch), panel.y(p.mean)]);
    if (points.length === 1) appendSvg(panel.svg, "circle", { class: `dot ${colour}`, cx: coordinates[0][0], cy: coordinates[0][1], r: 3.5 });
    appendSvg(panel.svg, "path", { class: `curve ${colour}`, d: svgPath(coordinates), "stroke-dasharray": view.dash(index) });
  };

  const drawPanel = (view, panel) => {
    const { svg, metric } = panel, log = view.log.checked && metric.endsWith("loss");
    svg.replaceChildren();
    panel.tip.hidden = true;
    panel.x = null;
    panel.series = view.selected().map((index) => ({
      index, group: view.data.groups[index], points: view.statistics(index, metric).filter((p) => view.inRange(p.epoch)),
    }));
    const runs = !view.single.checked ? [] : panel.series.flatMap(({ index, group }) => group.runs.map((run) => ({
      index, run, points: run.epochs.map((epoch, i) => [epoch, run[metric][i]]).filter(([e, v]) => v !== null && view.inRange(e)),
    })));
    const values = [
      ...panel.series.flatMap((s) => s.points.flatMap((p) => [p.mean - p.deviation, p.mean + p.deviation, p.mean])),
      ...runs.flatMap(({ points }) => points.map(([, value]) => value)),
    ].filter((value) => !log || value > 0);
    if (!values.length) {
      appendSvg(svg, "text", { x: WIDTH / 2, y: HEIGHT / 2, "text-anchor": "middle" },
        panel.series.length ? "nothing was recorded" : "no curve selected: tick rows of the table");
      return;
    }
    const epochs = [
      ...panel.series.flatMap((s) => s.points.map((p) => p.epoch)),
      ...runs.flatMap(({ run }) => run.epochs.filter(view.inRange)),
    ];
    drawAxes(panel, epochs, values, log);
    panel.series.forEach((series) => drawBand(view, panel, series));
    runs.forEach((run) => drawRun(view, panel, run));
    panel.series.forEach((series) => drawMean(view, panel, series));
    panel.cross = appendSvg(svg, "g", {});
  };

  // Marks an epoch in every panel and shows its values in the active one; null removes the marks.
  const showEpoch = (view, active, epoch) => {
    view.epoch = epoch;
    for (const panel of view.panels) {
      panel.tip.hidden = panel !== active || epoch === null || !panel.x;
      if (!panel.x) continue;
      panel.cross.replaceChildren();
      if (epoch === null) continue;
      appendSvg(panel.cross, "line", { class: "cross", x1: panel.x(epoch), x2: panel.x(epoch), y1: TOP, y2: HEIGHT - BOTTOM });
      const found = panel.series.flatMap(({ index, group, points }) => {
        const p = points.find((each) => each.epoch === epoch);
        return p ? [{ index, group, p }] : [];
      }).sort((a, b) => b.p.mean - a.p.mean);
      for (const { index, p } of found)
        appendSvg(panel.cross, "circle", { class: `dot ${view.colour(index)}`, cx: panel.x(epoch), cy: panel.y(p.mean), r: 3.5 });
      if (panel === active) fillTip(view, panel, epoch, found);
    }
  };
  const fillTip = (view, panel, epoch, found) => {
    const lines = found.slice(0, MAX_TIP_LINES).map(({ index, p }) => createElement("div", { class: view.colour(index) },
      createElement("span", { class: "key" }), createElement("span", { class: "name" }, view.labels.get(index)),
      createElement("span", { class: "value" }, formatValue(p.mean) + (p.n > 1 ? ` ± ${formatValue(p.deviation)}, n = ${p.n}` : ""))));
    const rest = found.length > MAX_TIP_LINES ? `, ${found.length - MAX_TIP_LINES} more below` : "";
    panel.tip.replaceChildren(createElement("b", {}, `epoch ${epoch}${rest}`), ...lines);
    const share = panel.x(epoch) / WIDTH, [side, percent] = share < 0.5 ? ["left", share * 100] : ["right", (1 - share) * 100];
    panel.tip.style.cssText = `${side}:calc(${percent}% + 14px);top:36px;max-width:calc(${100 - percent}% - 22px)`;
  };

  return { appendSvg, createElement, createPanel, drawPanel, maximum, statisticsByEpoch };
})();
