"""The live page: written again while runs go on, served to this machine alone, and shown again by a real browser."""

import http.client
import json
import os
import shutil
import subprocess
import time
from urllib.parse import unquote

import pytest

from resnet_cli.commands import report as command
from resnet_cli.report import watch
from tests.support.reports import write_run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ACTION = """<script>
if (!sessionStorage.acted) {
  sessionStorage.acted = 1;
  const box = document.querySelector("input[type=search]");
  box.value = "lr=0.1";
  box.dispatchEvent(new Event("input"));
  document.querySelector('th[data-key="val_accuracy"] button').click();
  document.querySelector("[data-column=seconds]").click();
  scrollTo(0, 150);
} else {
  const seen = {
    shown: document.querySelector(".shown").textContent, filter: document.querySelector("input[type=search]").value,
    sorted: document.querySelector('th[aria-sort="ascending"]')?.dataset.key, scrolled: scrollY,
    hidden: document.querySelector('th[data-key="seconds"]').hidden, bars: document.querySelectorAll("progress").length,
  };
  fetch("/?" + encodeURIComponent(JSON.stringify(seen)));
}
</script></body>"""


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs/a", "optimizer.lr=0.1", overrides=["optimizer.lr=0.1"])
    write_run(tmp_path / "runs/b", "optimizer.lr=0.2", status="running", overrides=["optimizer.lr=0.2"])
    (tmp_path / "runs/b/.lock").write_text(f"pid {os.getpid()} on {os.uname().nodename}\n")
    return tmp_path / "runs"


def rounds(monkeypatch, *actions):
    """Let `--watch` take as many turns as there are actions, each before a turn, and end as by Ctrl-C."""

    def watch(make_page, show, seconds, ended):
        for action in actions:
            action()
            show(make_page())
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "watch", watch)


def test_the_page_is_written_again_and_at_last_as_one_that_stays(runs, tmp_path, monkeypatch, capsys):
    seen = []
    page = tmp_path / "runs.html"
    finish = {"status": "finished", "val": 95.0}
    rounds(
        monkeypatch, lambda: seen.append(page.read_text()),
        lambda: write_run(runs / "b", "optimizer.lr=0.2", overrides=["optimizer.lr=0.2"], **finish),
        lambda: seen.append(page.read_text()),
    )  # fmt: skip
    assert command.run([str(runs), "--watch", "2"]) == 130
    assert capsys.readouterr().out == "runs.html: every 2 s; Ctrl-C ends it\n"
    first, second = seen
    assert 'data-refresh="2"' in first
    assert '<td class="place">b</td>' in first.partition("<main>")[0]  # it goes on
    assert "No run is in progress." in second
    assert "95.00" in second
    assert "data-refresh" not in page.read_text()
    assert "95.00" in page.read_text()


def test_a_folder_without_runs_is_watched_and_a_missing_one_is_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "later").mkdir()
    rounds(monkeypatch, lambda: None)
    assert command.run(["later", "--watch"]) == 130
    assert "no run has begun yet" in (tmp_path / "runs.html").read_text()
    (tmp_path / "runs.html").unlink()
    capsys.readouterr()
    assert command.run(["latre", "--watch"]) == 2
    assert capsys.readouterr().err.startswith("error: latre: no such folder")
    assert not (tmp_path / "runs.html").exists()


@pytest.mark.parametrize(
    "typed",
    [["--watch", "--out", "runs.md"], ["--serve", "--format", "csv"], ["--watch", "0"], ["~nobody_here/x", "--watch"]],
)
def test_wrong_options_are_an_error(runs, typed, capsys, tmp_path):
    assert command.run([str(runs), *typed]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def answer(address, path="/", method="GET", **headers):
    connection = http.client.HTTPConnection(address.removeprefix("http://").rstrip("/"), timeout=10)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    return response.status, response.read()


def test_the_page_alone_is_served_and_to_this_machine_alone():
    pages = watch.Pages()
    pages.show("<p>one</p>")
    with watch.served(pages, 0) as address:
        assert address.startswith("http://127.0.0.1:")
        assert answer(address) == (200, b"<p>one</p>")
        pages.show("<p>two</p>")
        assert answer(address, "/?x=1") == (200, b"<p>two</p>")
        assert answer(address, method="HEAD") == (200, b"")
        assert answer(address, "/etc/passwd")[0] == 404
        assert answer(address, method="POST")[0] == 501
        assert answer(address, Host="localhost:9000")[0] == 200  # the near end of a tunnel
        assert answer(address, Host="evil.example")[0] == 403  # a web site whose name leads here
        port = int(address.rstrip("/").rpartition(":")[2])
        with pytest.raises(watch.InputError, match=f"--serve {port}: cannot listen"), watch.served(pages, port):
            pass


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_a_browser_shows_the_page_again_as_it_was_left(runs, tmp_path, monkeypatch):
    """It filters, sorts, hides a column and scrolls; the page that comes next has more runs, and is left as it was."""
    asked, respond = [], watch._Handler._answer
    monkeypatch.setattr(
        watch._Handler,
        "_answer",
        lambda self, *, with_body: (asked.append(self.path), respond(self, with_body=with_body)),
    )

    def look(make_page, show, seconds, event):
        show(make_page().replace("</body>", ACTION))
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=800,400")
        address = f"http://127.0.0.1:{port}/"
        browser = subprocess.Popen(
            [BROWSER, *options, f"--user-data-dir={tmp_path / 'profile'}", "--remote-debugging-port=0", address],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait(lambda: "/" in asked)
        write_run(runs / "c", "optimizer.lr=0.1", "seed=1", overrides=["optimizer.lr=0.1"], val=70.0)
        write_run(runs / "d", "optimizer.lr=0.4", overrides=["optimizer.lr=0.4"])
        show(make_page().replace("</body>", ACTION))
        wait(lambda: any(path.startswith("/?") and "of%203" in path for path in asked))
        browser.kill()
        browser.wait()
        raise KeyboardInterrupt

    port = free_port()
    monkeypatch.setattr(command, "watch", look)
    assert command.run([str(runs), "--serve", str(port), "--watch", "0.5"]) == 130
    seen = json.loads(unquote(next(path for path in asked if "of%203" in path)[2:]))
    assert seen == {
        "shown": "1 of 3 groups", "filter": "lr=0.1", "sorted": "val_accuracy", "scrolled": 150, "hidden": True,
        "bars": 0,
    }  # fmt: skip


def wait(is_true, seconds=60):
    began = time.monotonic()
    while not is_true():
        assert time.monotonic() - began < seconds
        time.sleep(0.05)


def free_port():
    with watch.served(watch.Pages(), 0) as address:
        return int(address.rstrip("/").rpartition(":")[2])


def test_a_browser_that_has_gone_is_no_error(capsys):
    for error, said in ((BrokenPipeError(), False), (ConnectionResetError(), False), (ValueError("defect"), True)):
        server = watch._Server.__new__(watch._Server)
        try:
            raise error
        except (OSError, ValueError):
            server.handle_error(None, ("127.0.0.1", 1))
        assert bool(capsys.readouterr().err) == said
