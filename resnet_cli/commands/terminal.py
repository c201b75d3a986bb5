"""Output of the commands on the terminal."""

import codecs
import json
import re
import sys

from resnet_cli.errors import MachineError
from resnet_cli.streams import discard_output, has_no_reader


def print_output(text: str) -> bool:
    """Print a text at once, without a newline at its end; characters that the encoding lacks become escapes.

    A closed pipe, as in `resnet-report ... | head`, is not an error.

    Returns:
        Whether there is still a reader: False if the pipe is closed.

    Raises:
        MachineError: Standard output cannot be written, for example to a full disk.
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), end="", flush=True)
    except OSError as error:
        discard_output(sys.stdout)  # Python flushes it once more at exit, which would print a traceback
        if has_no_reader(error):
            return False
        raise MachineError(error.errno, f"standard output: {error.strerror or error}") from None
    return True


def print_json(text: str) -> bool:
    r"""Print JSON; see `print_output`.

    JSON is UTF-8 or ASCII, and lacks the escapes that stand for missing characters, such as `\xe9`. Where standard
    output has another encoding, all characters beyond ASCII are printed as escapes of JSON.

    Returns:
        Whether there is still a reader.

    Raises:
        MachineError: Standard output cannot be written.
    """
    is_utf8 = codecs.lookup(sys.stdout.encoding or "utf-8").name == "utf-8"
    return print_output(text if is_utf8 else re.sub(r"[^\x00-\x7f]", lambda found: json.dumps(found[0])[1:-1], text))
