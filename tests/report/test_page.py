"""The page of a report in headless Chromium: sorted, filtered and drawn, and no error raised."""

import html
import json
import re
import shutil
import subprocess

import pytest

from resnet_cli import report
from resnet_cli.report.page import ASSETS, _curves
from tests.support.reports import write_run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NODE = shutil.which("node")
NAME = "<img src=x onerror=window.hacked=1>"

DRIVER = """
<script>
const seen = {errors: window.seenErrors};
const $ = (what) => document.querySelector(what), all = (what) => [...document.querySelectorAll(what)];
const first = () => all("section:first-of-type tbody[data-group]").filter((b) => !b.hidden)
  .map((b) => b.querySelector("td[data-v]").dataset.v);
const head = (key) => $(`th[data-key="${key}"] button`);
const type = (text) => {
  const box = $("input[type=search]");
  box.value = text;
  box.dispatchEvent(new Event("input"));
};
seen.start = first();
seen.curves = all("section:first-of-type .panel").map((p) => p.querySelectorAll(".curve").length);
seen.bands = all("section:first-of-type .panel:first-child .band").length;
head("val_accuracy").click(); seen.up = first(); seen.aria = head("val_accuracy").parentElement.ariaSort;
head("val_accuracy").click(); seen.down = first();
head("optimizer.lr").click(); seen.byKey = first();
for (const text of ["lr>=0.1", "lr=0.05", "failed", "zzz", "lr>0.05 lr<0.3", "resnet_cli/none"]) {
  type(text);
  seen[text] = first();
}
seen.shown = $(".shown").textContent;
type("lr=0.1"); seen.filteredCurves = all("section:first-of-type .panel:first-child .curve").length; type("");
$("[data-draw=none]").click(); seen.none = all("section:first-of-type .curve:not(.legend *)").length;
$("[data-draw=all]").click(); seen.all = all("section:first-of-type .panel:first-child .curve").length;
$(".single").click(); seen.singles = all("section:first-of-type .panel:first-child .run").length; $(".single").click();
$(".log").click(); $(".late").click(); seen.finite = !$(".panels").innerHTML.includes("NaN");
$(".log").click(); $(".late").click();
const svg = $(".panel svg");
svg.dispatchEvent(new KeyboardEvent("keydown", {key: "End"}));
seen.tip = $(".tip").textContent; seen.tipHidden = $(".tip").hidden;
svg.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft"})); seen.before = $(".tip b").textContent;
svg.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape"})); seen.left = $(".tip").hidden;
const box = svg.getBoundingClientRect();
svg.dispatchEvent(new PointerEvent("pointermove", {clientX: box.left + box.width - 5, clientY: box.top + 50}));
seen.hover = $(".tip b").textContent;
seen.legend = all("section:first-of-type .legend span").map((s) => s.textContent);
const column = (key) => $(`section:first-of-type [data-column="${key}"]`);
const shownHeads = () => all("#table-0 > thead th[data-key]").filter((th) => !th.hidden).map((th) => th.dataset.key);
seen.atFirst = shownHeads();
seen.widths = all("#table-0 tr.group").map((row) => [...row.children].filter((td) => !td.hidden).length);
column("trainer.averaging").click(); column("parameters").click(); seen.chosen = shownHeads();
seen.longer = all("section:first-of-type .legend span").map((s) => s.textContent);
$('[data-columns="all"]').click(); seen.allColumns = shownHeads().length;
$('[data-columns="overrides"]').click(); seen.again = shownHeads();
$(".more").click(); seen.opened = [!$("tr.runs").hidden, $(".more").ariaExpanded];
const ground = () => getComputedStyle(document.body).backgroundColor;
$("#theme").click(); seen.light = ground(); $("#theme").click(); seen.dark = ground(); $("#theme").click();
seen.hacked = window.hacked === 1; seen.requests = performance.getEntriesByType("resource").length;
seen.overflow = document.documentElement.scrollWidth > innerWidth;
document.body.replaceChildren(Object.assign(document.createElement("pre"), {textContent: JSON.stringify(seen)}));
</script>
"""
LISTENER = (
    "<script>window.seenErrors = []; addEventListener('error', (e) => window.seenErrors.push(e.message));</script>"
)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What the driver found on the page."""
    if BROWSER is None:
        pytest.skip("no Chromium is installed")
    top = tmp_path_factory.mktemp("page")
    for rate, val in ((0.05, 93.0), (0.1, 95.0), (0.3, 91.0)):
        for seed in (0, 1):
            averaging = "ema" if rate == 0.1 else "none"
            write_run(
                top / "runs" / f"{rate}-{seed}", f"optimizer.lr={rate}", f"trainer.averaging={averaging}",
                f"seed={seed}", val=val + seed, overrides=[f"optimizer.lr={rate}"],
            )  # fmt: skip
    changes = ["optimizer.lr=1.0", f"name={NAME}"]
    write_run(top / "runs" / NAME, *changes, status="failed", reason=NAME, overrides=changes)
    write_run(top / "runs" / "other", "data.val_fraction=0.5", "optimizer.lr=0.1", overrides=[])
    found = report.read_runs([top / "runs"])
    page = report.format_html(found, report.build_tables(found.runs))
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    path = top / "page.html"
    path.write_text(page.replace("<style>", f"{LISTENER}<style>").replace("</body>", f"{DRIVER}</body>"), "utf-8")
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
         f"--user-data-dir={top / 'profile'}", "--window-size=1400,1600", "--dump-dom", path.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    printed = re.search(r"<pre>(.*)</pre>", done.stdout, re.DOTALL)
    assert printed, done.stdout[-2000:]
    return json.loads(html.unescape(printed[1]))


def test_no_error_is_raised_and_nothing_is_fetched_or_run(seen):
    assert seen["errors"] == []
    assert not seen["hacked"]
    assert seen["requests"] == 0
    assert not seen["overflow"]


def test_rows_sort_both_ways_and_what_is_missing_stays_last(seen):
    assert seen["start"] == ["0.05", "0.1", "0.3", "1.0"]
    assert seen["up"] == ["0.3", "0.05", "0.1", "1.0"]
    assert seen["aria"] == "ascending"
    assert seen["down"] == ["0.1", "0.05", "0.3", "1.0"]
    assert seen["byKey"] == ["0.05", "0.1", "0.3", "1.0"]


def test_rows_are_filtered_by_words_and_by_values(seen):
    assert seen["lr>=0.1"] == ["0.1", "0.3", "1.0"]
    assert seen["lr=0.05"] == ["0.05"]
    assert seen["failed"] == ["1.0"]
    assert seen["zzz"] == seen["resnet_cli/none"] == []
    assert seen["lr>0.05 lr<0.3"] == ["0.1"]
    assert seen["shown"] == "0 of 4 groups"


def test_curves_are_drawn_for_what_is_ticked_and_shown(seen):
    assert seen["curves"] == [3, 3, 3, 3]
    assert seen["bands"] == 3
    assert seen["filteredCurves"] == 1
    assert (seen["none"], seen["all"], seen["singles"]) == (0, 4, 7)
    assert seen["finite"]


def test_values_come_by_key_and_pointer(seen):
    assert not seen["tipHidden"]
    assert seen["tip"].startswith("epoch 3lr=0.195.50 ± 0.707, n = 2")
    assert seen["before"] == "epoch 2"
    assert seen["left"]
    assert seen["hover"] == "epoch 3"


def test_columns_are_chosen_and_legends_name_the_difference(seen):
    results = ["n", "val_accuracy", "test_accuracy", "best_epoch", "epochs", "seconds", "parameters", "not_counted"]
    assert seen["atFirst"] == seen["again"] == ["optimizer.lr", *results]
    assert len(set(seen["widths"])) == 1
    assert seen["chosen"] == ["optimizer.lr", "trainer.averaging", *(r for r in results if r != "parameters")]
    assert seen["legend"] == ["lr=0.05", "lr=0.1", "lr=0.3", "lr=1.0"]
    assert seen["longer"][:2] == ["lr=0.05, averaging=none", "lr=0.1, averaging=ema"]
    assert seen["allColumns"] == 10


def test_rows_open_and_themes_change(seen):
    assert seen["opened"] == [True, "true"]
    assert (seen["light"], seen["dark"]) == ("rgb(255, 255, 255)", "rgb(20, 23, 28)")


def test_a_run_that_ended_earlier_than_others_adds_no_epoch_of_its_own_to_their_mean(tmp_path):
    for seed, epochs in enumerate((701, 901)):
        write_run(tmp_path / str(seed), f"seed={seed}", epochs=epochs)
    (table,) = report.build_tables(report.read_runs([tmp_path]).runs)
    (group,) = _curves(table)["groups"]
    shorter, longer = sorted((run["epochs"] for run in group["runs"]), key=len)
    assert (shorter[-1], longer[-1]) == (699, 901)
    assert set(shorter) < set(longer)


@pytest.mark.skipif(NODE is None, reason="no Node.js is installed")
def test_rows_of_several_values_are_filtered_by_each_and_sorted_by_the_first():
    script = (ASSETS / "page.js").read_text(encoding="utf-8")
    functions = script[script.index("  const createFilter") : script.index("  // Assigns colours")]
    driver = """
      const cells = ["0.05, 0.1", "0.2, 0.4", "1e-3", "0.05"];
      const rows = cells.map((cell) => ({ text: cell, cells: [cell] }));
      const shown = (text) => rows.filter(createFilter(text, ["optimizer.lr"])).map((row) => row.text);
      const found = ["lr=0.1", "lr>=0.4", "lr<0.06", "lr!=0.05"].map(shown);
      console.log(JSON.stringify([...found, cells.sort(compareCells)]));
    """
    done = subprocess.run([NODE, "-e", functions + driver], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == [
        ["0.05, 0.1"],
        ["0.2, 0.4"],
        ["0.05, 0.1", "1e-3", "0.05"],
        ["0.2, 0.4", "1e-3"],
        ["1e-3", "0.05", "0.05, 0.1", "0.2, 0.4"],
    ]
