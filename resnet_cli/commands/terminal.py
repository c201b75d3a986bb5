"""Output of the commands on the terminal."""

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
