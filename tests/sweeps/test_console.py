"""What jobs of a sweep print, here and from other processes."""

import threading

from resnet_cli.sweeps import console
from resnet_cli.sweeps.folder import SweepDir


def test_names_of_files_print_no_control_characters(tmp_path, capsys):
    job = console.JobConsole("job 0", SweepDir(tmp_path), is_local=True)
    job.print("x\x1b]0;owned\x07.png\nsecond line")
    job.print_error("x\x1b[31m")
    said = capsys.readouterr()
    assert said.out == "\njob 0: x\\x1b]0;owned\\x07.png\nsecond line\n"
    assert said.err == "error: job 0: x\\x1b[31m\n"


def test_a_message_that_a_full_disk_has_cut_hides_no_other(tmp_path, capsys):
    (tmp_path / "said").write_text('["one", false]\n["tw\n["three", false]\n')
    ended = threading.Event()
    ended.set()
    console._print_messages(tmp_path / "said", ended)
    assert capsys.readouterr().out == "one\nthree\n"
