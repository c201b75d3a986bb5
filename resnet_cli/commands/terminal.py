"""Output of the commands on the terminal."""

import codecs
import json
import re
import sys

from resnet_cli.errors import MachineError
from resnet_cli.streams import discard_output


def print_output(text: str) -> None:
    """Print a whole output at once, without a newline at its end; characters that the encoding lacks become escapes.

    A closed pipe, as in `resnet-report ... | head`, is not an error.

    Raises:
        MachineError: Standard output cannot be written, for example to a full disk.
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), end="", flush=True)
    except OSError as error:
        discard_output(sys.stdout)  # Python flushes it once more at exit, which would print a traceback
        if not isinstance(error, BrokenPipeError):
            raise MachineError(error.errno, f"standard output: {error.strerror or error}") from None


def print_json(text: str) -> None:
    r"""Print JSON; see `print_output`.

    JSON is UTF-8 or ASCII, and lacks the escapes that stand for missing characters, such as `\xe9`. Where standard
    output has another encoding, all characters beyond ASCII are printed as escapes of JSON.

    Raises:
        MachineError: Standard output cannot be written.
    """
    is_utf8 = codecs.lookup(sys.stdout.encoding or "utf-8").name == "utf-8"
    print_output(text if is_utf8 else re.sub(r"[^\x00-\x7f]", lambda found: json.dumps(found[0])[1:-1], text))
