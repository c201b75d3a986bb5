"""A process that imports torch and resnet-train once and forks for each command; it reads and writes lines of JSON.

{"start": {args, folder, env, out, err, code}} -> {"pid"}     in a session of its own, in `folder`; `code` is run first
{"poll": pid} -> {"status", "peak_kib"}                       both null while it runs
"""

import atexit
import gc
import json
import os
import sys
import tempfile
import traceback
from typing import Any


def main() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warm_up()
    gc.collect()
    gc.freeze()  # else each child's own collections would copy all the memory that it shares with this process
    print(json.dumps({"ready": os.getpid()}), file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            pid = os.fork()
            if pid == 0:
                replies.close()
                become(request["start"])  # does not come back
            answer: dict[str, int | None] = {"pid": pid}
        else:
            pid, status, used = os.wait4(request["poll"], os.WNOHANG)
            ended = pid != 0
            answer = {
                "status": os.waitstatus_to_exitcode(status) if ended else None,
                "peak_kib": used.ru_maxrss if ended else None,
            }
        print(json.dumps(answer), file=replies, flush=True)
    os._exit(0)  # not through the interpreter's end: see `become`


def warm_up() -> None:
    """Run once in this process, so that lazily imported modules are imported."""
    from resnet_cli.commands.train.main import run

    options = ["data=digits", "data.backend=stream", "data.workers=0", "trainer.epochs=1", "trainer.max_batches=1"]
    with tempfile.TemporaryDirectory() as folder:
        sys.argv = ["resnet-train"]
        silence, err = os.open(os.devnull, os.O_WRONLY), os.dup(2)
        os.dup2(silence, 1)
        status = run([*options, "model=resnet8", f"hydra.run.dir={folder}/run"])
        os.dup2(err, 1)
    assert status == 0, status


def become(command: dict[str, Any]) -> None:
    """Turn this forked process into `resnet-train` as the shell would start it."""
    os.setsid()
    for number, path in ((0, os.devnull), (1, command["out"]), (2, command["err"])):
        descriptor = os.open(path, (os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if number else os.O_RDONLY, 0o666)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(command["folder"])
    os.environ.update(command["env"])
    sys.argv = ["resnet-train", *command["args"]]
    from resnet_cli.commands.train.main import main as train

    exec(command["code"], {})
    try:
        train()
    except SystemExit as done:
        status = int(done.code or 0)
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(status)  # interpreter shutdown would traverse all frozen objects and report leaks


if __name__ == "__main__":
    main()
