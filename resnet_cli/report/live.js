// Shows the page again every few seconds, as it was left: filter, order, curves, columns, open rows and position. A page
// from a server asks it first, and stays as it is once nobody answers.
"use strict";
(() => {
  const seconds = Number(document.querySelector("[data-refresh]").dataset.refresh);
  const key = `resnet-report-view ${location.pathname}`;
  const sections = [...document.querySelectorAll("section[data-table]")];
  const titleOf = (section) => section.querySelector("h2").textContent.replace(/^Protocol \d+ of \d+ /, "");
  const boxes = ["single", "late", "log"];
  let isTouched = false; // the choice of curves is the user's, no longer that of the page
  const press = (element, kind) => element.dispatchEvent(new Event(kind, { bubbles: true }));

  const viewOf = (section) => {
    const sorted = section.querySelector('th[aria-sort]:not([aria-sort="none"])');
    const all = (what) => [...section.querySelectorAll(what)];
    return {
      filter: section.querySelector('input[type="search"]').value,
      sort: sorted && [sorted.dataset.key, sorted.getAttribute("aria-sort")],
      drawn: isTouched ? all(".draw:checked").map((box) => box.getAttribute("aria-label")) : null,
      boxes: boxes.filter((name) => section.querySelector(`.${name}`).checked),
      columns: all("[data-column]:checked").map((box) => box.dataset.column),
      known: all("[data-column]").map((box) => box.dataset.column),
      open: all('.more[aria-expanded="true"]').map((button) => button.getAttribute("aria-label")),
      choosing: section.querySelector("details.columns").open,
      scroll: section.querySelector(".scroll").scrollTop,
    };
  };
  const restore = (section, view) => {
    const find = (what, test) => [...section.querySelectorAll(what)].filter(test);
    const filter = section.querySelector('input[type="search"]');
    for (const box of find("[data-column]", (item) => view.known.includes(item.dataset.column))) {
      if (box.checked === view.columns.includes(box.dataset.column)) continue;
      box.checked = !box.checked;
      press(box, "change");
    }
    for (const name of view.boxes) {
      section.querySelector(`.${name}`).checked = true;
      press(section.querySelector(`.${name}`), "change");
    }
    if (view.sort) {
      const [head] = find("th[data-key]", (th) => th.dataset.key === view.sort[0]);
      for (let i = 0; head && i < 2 && head.getAttribute("aria-sort") !== view.sort[1]; i++) head.firstChild.click();
    }
    if (view.drawn) {
      for (const box of find(".draw", () => true)) box.checked = view.drawn.includes(box.getAttribute("aria-label"));
      press(section.querySelector("table"), "change");
    }
    if (view.filter) {
      filter.value = view.filter;
      press(filter, "input");
    }
    for (const button of find(".more", (item) => view.open.includes(item.getAttribute("aria-label")))) button.click();
    section.querySelector("details.columns").open = view.choosing;
    section.querySelector(".scroll").scrollTop = view.scroll;
  };
  const save = () => {
    const views = Object.fromEntries(sections.map((section) => [titleOf(section), viewOf(section)]));
    const content = { views, isTouched, x: scrollX, y: scrollY };
    try { sessionStorage.setItem(key, JSON.stringify(content)); } catch { /* browsers may deny storage to local files */ }
  };
  const load = () => {
    let stored = null;
    try { stored = JSON.parse(sessionStorage.getItem(key)); } catch { /* as above */ }
    if (!stored) return;
    isTouched = stored.isTouched;
    for (const section of sections) if (stored.views[titleOf(section)]) restore(section, stored.views[titleOf(section)]);
    scrollTo(stored.x, stored.y);
  };
  const isBusy = () => document.activeElement?.matches('input[type="search"]') || !getSelection().isCollapsed;
  const isThere = async () => {
    if (location.protocol === "file:") return true;
    try { return (await fetch(location.href, { method: "HEAD", cache: "no-store" })).ok; } catch { return false; }
  };
  const refresh = async () => {
    if (!isBusy() && await isThere()) {
      save();
      location.reload();
    }
  };

  load();
  const noteTouch = (event) => { if (event.isTrusted && event.target.matches(".draw, [data-draw]")) isTouched = true; };
  document.addEventListener("change", noteTouch);
  document.addEventListener("click", noteTouch);
  setInterval(refresh, 1000 * seconds);
})();
