// Sorts and filters the tables of a report and decides which curves are drawn. Text from runs is set as text, never as
// HTML.
"use strict";
(() => {
  const { appendSvg, createElement, createPanel, drawPanel, maximum, statisticsByEpoch } = Curves; // see curves.js
  const DASHES = ["", "7 4", "2 3", "10 3 2 3"], COLOURS = 8; // .c0 to .c7 in page.css
  const MAX_LEGEND_ENTRIES = 24;
  const tables = JSON.parse(document.getElementById("curves").textContent);

  const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

  // All words of the filter must occur in a row. key=value, key<value and so on compare a column, whose name may be
  // shortened to its last part.
  const createFilter = (text, keys) => {
    const terms = text.toLowerCase().split(/\s+/).filter(Boolean).map((term) => {
      const parts = /^([\w.]+)(<=|>=|!=|=|<|>)(.+)$/.exec(term);
      const matchesName = (key) => key === parts[1] || key.endsWith(`.${parts[1]}`);
      const column = parts ? keys.findIndex((key) => matchesName(key.toLowerCase())) : -1;
      if (column < 0) return (row) => row.text.includes(term);
      const [, , sign, wanted] = parts;
      return (row) => {
        // A key that differs within a group has several values: the row matches if one of them does.
        const cell = row.cells[column].toLowerCase(), values = [...new Set([cell, ...cell.split(", ")])];
        const matches = (value) => {
          const numeric = isNumeric(value) && isNumeric(wanted);
          const [a, b] = numeric ? [Number(value), Number(wanted)] : [value, wanted];
          if (sign === "=" || sign === "!=") return a === b;
          return numeric && { "<": a < b, ">": a > b, "<=": a <= b, ">=": a >= b }[sign];
        };
        return values.some(matches) === (sign !== "!=");
      };
    });
    return (row) => terms.every((matches) => matches(row));
  };
  const isNumeric = (text) => text !== "" && !isNaN(text);
  const firstValue = (text) => text.split(", ", 1)[0];
  const compareNumbers = (a, b) => (isNumeric(a) && isNumeric(b) ? Number(a) - Number(b) : 0);
  const compareCells = (a, b) => compareNumbers(firstValue(a), firstValue(b)) || a.localeCompare(b, "en", { numeric: true });

  // Assigns colours and dashes to curves. A curve keeps its own while it is drawn; new curves get those that are free.
  const createStyles = () => {
    const slots = new Map();
    return {
      has: (index) => slots.has(index),
      colour: (index) => `c${slots.get(index) % COLOURS}`,
      dash: (index) => DASHES[Math.floor(slots.get(index) / COLOURS) % DASHES.length],
      update: (selected) => {
        for (const index of [...slots.keys()]) if (!selected.includes(index)) slots.delete(index);
        const taken = new Set(slots.values());
        let free = 0;
        for (const index of selected) {
          if (slots.has(index)) continue;
          while (taken.has(free)) free++;
          slots.set(index, free++);
        }
      },
    };
  };

  // The state of a section: the data of its curves, the rows of its table, and the controls.
  const createView = (element) => {
    const data = tables[Number(element.dataset.table)], table = element.querySelector("table");
    const rows = [...table.tBodies].map((body) => ({
      body, index: Number(body.dataset.group), text: body.textContent.toLowerCase(), box: body.querySelector(".draw"),
      swatch: body.querySelector(".swatch"),
      tds: [...body.querySelectorAll("tr.group td[data-v]")],
    }));
    for (const row of rows) row.cells = row.tds.map((td) => td.dataset.v);
    const lastEpoch = maximum(data.groups.flatMap((group) => group.runs.flatMap((run) => run.epochs)));
    const styles = createStyles(), cache = new Map();
    const view = {
      element, data, table, rows, styles, labels: new Map(), epoch: null, panels: [], colour: styles.colour, dash: styles.dash,
      single: element.querySelector(".single"), log: element.querySelector(".log"), late: element.querySelector(".late"),
      heads: [...table.querySelectorAll("thead th[data-key]")].filter((th) => th.closest("table") === table),
      visible: () => rows.filter((row) => !row.body.hidden),
      selected: () => view.visible().filter((row) => row.box.checked).map((row) => row.index).sort((a, b) => a - b),
      inRange: (epoch) => !view.late.checked || epoch >= lastEpoch / 2,
      statistics: (index, metric) => {
        const key = `${metric} ${index}`;
        if (!cache.has(key)) cache.set(key, statisticsByEpoch(data.groups[index], metric));
        return cache.get(key);
      },
    };
    return view;
  };

  const drawLegend = (view, selected) => {
    const entries = selected.slice(0, MAX_LEGEND_ENTRIES).map((index) => {
      const entry = createElement("div", { class: view.colour(index) });
      const svg = appendSvg(entry, "svg", { viewBox: "0 0 26 10", "aria-hidden": "true" });
      appendSvg(svg, "path", { class: "curve", d: "M0 5H26", "stroke-dasharray": view.dash(index) });
      entry.append(createElement("span", { title: view.data.groups[index].label }, view.labels.get(index)));
      return entry;
    });
    const omitted = selected.length - entries.length;
    view.element.querySelector(".legend").replaceChildren(...entries, ...(omitted ? [`and ${omitted} more`] : []));
  };
  const redraw = (view) => {
    const selected = view.selected();
    view.epoch = null;
    view.styles.update(selected);
    labelCurves(view, selected);
    for (const row of view.rows) row.swatch.className = view.styles.has(row.index) ? `swatch ${view.colour(row.index)}` : "swatch";
    drawLegend(view, selected);
    view.panels.forEach((panel) => drawPanel(view, panel));
  };

  // What distinguishes a curve from the others that are drawn, by the columns of keys that are shown.
  const MAX_LABEL_PAIRS = 6;
  const keyColumns = (view) => view.heads.map((th, i) => i).filter((i) => !view.heads[i].classList.contains("figure") && !view.heads[i].hidden);
  const labelCurves = (view, selected) => {
    const rows = view.rows.filter((row) => selected.includes(row.index));
    const columns = keyColumns(view), names = columns.map((i) => view.heads[i].textContent);
    const pairsOf = (row) => columns.flatMap((i, place) => {
      const { key } = view.heads[i].dataset, text = row.cells[i];
      if (text === "") return [];
      if (key === "overrides") return text.split(", ").filter((pair) => !names.includes(pair.split("=")[0]));
      return [key === "model" || key === "run" ? text : `${names[place]}=${text}`];
    });
    const all = rows.map(pairsOf), isCommon = (pair) => all.every((pairs) => pairs.includes(pair));
    const common = new Set((all[0] || []).filter(isCommon));
    for (const [place, row] of rows.entries()) {
      const pairs = all[place].filter((pair) => !common.has(pair));
      const rest = pairs.length - MAX_LABEL_PAIRS;
      const label = pairs.slice(0, MAX_LABEL_PAIRS).join(", ") + (rest > 0 ? `, ${rest} more` : "");
      view.labels.set(row.index, label || (rows.length === 1 ? view.data.groups[row.index].label : "defaults"));
    }
  };

  // The choice of columns: a box for each, and all of them or those of the beginning.
  const createChoices = (view) => {
    const initial = view.heads.map((th) => !th.hidden);
    const showColumn = (i, shown) => {
      view.heads[i].hidden = !shown;
      for (const row of view.rows) row.tds[i].hidden = !shown;
      boxes[i].checked = shown;
    };
    const boxes = view.heads.map((th, i) => {
      const box = createElement("input", { type: "checkbox", "data-column": th.dataset.key });
      box.checked = initial[i];
      box.addEventListener("change", () => { showColumn(i, box.checked); redraw(view); });
      return box;
    });
    const createButton = (name, isShown) => {
      const button = createElement("button", { type: "button", "data-columns": name }, name);
      button.addEventListener("click", () => { boxes.forEach((box, i) => showColumn(i, isShown(i))); redraw(view); });
      return button;
    };
    view.element.querySelector(".choices").append(
      createElement("div", {}, createButton("overrides", (i) => initial[i]), createButton("all", () => true)),
      ...view.heads.map((th, i) => createElement("label", {}, boxes[i], ` ${th.classList.contains("figure") ? th.textContent : th.dataset.key}`)));
  };

  // The rows with the best results on validation among `rows`, at most as many as are drawn at first. Before the first
  // run has finished, those that have begun.
  const bestRows = (view, rows) => {
    const groups = view.data.groups, score = (row) => groups[row.index].score ?? -Number.MAX_VALUE;
    const finished = rows.filter((row) => groups[row.index].runs.some((run) => run.averaged));
    const begun = rows.filter((row) => groups[row.index].runs.some((run) => run.epochs.length));
    return (finished.length ? finished : begun)
      .sort((a, b) => score(b) - score(a)).slice(0, view.data.first);
  };
  const selectRows = (view, selected) => { for (const row of view.rows) row.box.checked = selected.includes(row); };

  const filterRows = (view, text) => {
    const matches = createFilter(text, view.heads.map((th) => th.dataset.key));
    for (const row of view.rows) row.body.hidden = !matches(row);
    const shown = view.visible().length, total = view.rows.length;
    view.element.querySelector(".shown").textContent = shown === total ? plural(shown, "group") : `${shown} of ${plural(total, "group")}`;
    redraw(view);
  };
  const sortRows = (view, column) => {
    const order = view.heads[column].getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    view.heads.forEach((th, i) => th.setAttribute("aria-sort", i === column ? order : "none"));
    const sign = order === "ascending" ? 1 : -1;
    view.rows.sort((a, b) => {
      const [x, y] = [a.cells[column], b.cells[column]];
      if ((x === "") !== (y === "")) return x === "" ? 1 : -1; // missing values come last in both orders
      return sign * compareCells(x, y) || a.index - b.index;
    });
    view.table.append(...view.rows.map((row) => row.body));
  };
  const toggleRuns = (button) => {
    const runs = button.closest("tbody").querySelector("tr.runs");
    runs.hidden = !runs.hidden;
    button.setAttribute("aria-expanded", String(!runs.hidden));
  };

  const startSection = (element) => {
    const view = createView(element), filter = element.querySelector('input[type="search"]');
    view.heads.forEach((th, i) => th.firstChild.addEventListener("click", () => sortRows(view, i)));
    filter.addEventListener("input", () => filterRows(view, filter.value));
    for (const box of [view.single, view.log, view.late]) box.addEventListener("change", () => redraw(view));
    view.table.addEventListener("change", (event) => { if (event.target.classList.contains("draw")) redraw(view); });
    view.table.addEventListener("click", (event) => {
      const button = event.target.closest(".more");
      if (button) toggleRuns(button);
    });
    element.querySelectorAll("[data-draw]").forEach((button) => button.addEventListener("click", () => {
      selectRows(view, { best: bestRows(view, view.visible()), all: view.visible(), none: [] }[button.dataset.draw]);
      redraw(view);
    }));
    const isRecorded = (metric) => view.data.groups.some((group) => group.runs.some((run) => run[metric].some((value) => value !== null)));
    view.panels = view.data.metrics.filter(isRecorded).map((metric) => createPanel(view, metric));
    element.querySelector(".panels").append(...view.panels.map((panel) => panel.figure));
    createChoices(view);
    selectRows(view, bestRows(view, view.rows));
    filterRows(view, filter.value);
  };

  const startThemeButton = () => {
    const button = document.getElementById("theme"), names = ["system", "light", "dark"], key = "resnet-report-theme";
    const setTheme = (name) => {
      if (name === "system") delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = name;
      button.lastElementChild.textContent = name[0].toUpperCase() + name.slice(1);
      button.setAttribute("aria-label", `Colour theme: ${name === "system" ? "as the system" : name}`);
      button.dataset.theme = name;
    };
    let stored = null;
    try { stored = localStorage.getItem(key); } catch { /* browsers may deny storage to local files */ }
    setTheme(names.includes(stored) ? stored : "system");
    button.addEventListener("click", () => {
      setTheme(names[(names.indexOf(button.dataset.theme) + 1) % names.length]);
      try { localStorage.setItem(key, button.dataset.theme); } catch { /* as above */ }
    });
  };

  startThemeButton();
  document.querySelectorAll("section[data-table]").forEach(startSection);
})();
