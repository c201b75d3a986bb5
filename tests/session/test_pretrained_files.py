"""The file of published weights: from the cache, from a server, and one line if from neither."""

import hashlib
import threading
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler

import pytest

from resnet_cli.errors import InputError
from resnet_cli.models.pretrained import Pretrained
from resnet_cli.session.pretrained_files import find_pretrained_file, has_published_weights

CONTENT = b"weights" * 1000


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Makes weights that a server in this process has under that name; the cache is empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    (tmp_path / "server").mkdir()
    server = HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "server")))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def make(name, *, exists=True):
        if exists:
            (tmp_path / "server" / name).write_bytes(CONTENT)
        return Pretrained("a net", "V1", url=f"http://127.0.0.1:{server.server_port}/{name}")

    yield make
    server.shutdown()
    server.server_close()


def test_a_missing_file_is_fetched_once(served, tmp_path):
    pretrained = served(f"net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth")
    file = find_pretrained_file(pretrained)
    assert file == tmp_path / "cache/hub/checkpoints" / pretrained.file_name
    assert file.read_bytes() == CONTENT
    (tmp_path / "server" / file.name).unlink()
    assert find_pretrained_file(pretrained) == file


@pytest.mark.parametrize(("exists", "words"), [(True, "invalid hash value"), (False, "HTTP Error 404")])
def test_what_cannot_be_fetched_whole_is_one_line_and_leaves_no_file(served, tmp_path, exists, words):
    pretrained = served("net-0123abcd.pth", exists=exists)
    with pytest.raises(InputError) as caught:
        find_pretrained_file(pretrained)
    (line,) = caught.value.problems
    place = tmp_path / "cache/hub/checkpoints/net-0123abcd.pth"
    assert line.startswith(f"model.weights=V1: could not fetch {pretrained.url} (")
    assert words in line
    assert line.endswith(f"put it at {place} yourself")
    assert list(place.parent.iterdir()) == []


def test_a_file_of_the_users_is_not_looked_for_elsewhere(tmp_path):
    with pytest.raises(InputError, match=r"model\.weights=.*mine\.pth: no such file"):
        find_pretrained_file(Pretrained("a net", str(tmp_path / "mine.pth")))


def test_weights_of_torchvision_are_at_hand_where_it_keeps_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert not has_published_weights("resnet18")
    file = tmp_path / "hub/checkpoints/resnet18-f37072fd.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    assert has_published_weights("resnet18")
    assert not has_published_weights("resnet50")
