"""Failures that a user can act on, each with its own exit status."""

import sys
import sysconfig
import traceback
from pathlib import Path

# Parts of torch's messages when device or main memory is full: not all of these errors are `OutOfMemoryError`s.
OUT_OF_MEMORY = (
    "CUDA out of memory", "CUDA error: out of memory", "HIP out of memory", "MPS backend out of memory",
    "DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", "CUFFT_ALLOC_FAILED",
)  # fmt: skip
# cuDNN's messages if it can use none of its algorithms: all lack memory to work in, or it does not have the operation.
NO_ALGORITHM = ("unable to find an engine to execute this computation", "Unable to find a valid cuDNN algorithm")
COMPILERS = ("torch._dynamo", "torch._inductor", "torch.fx", "triton")


class InputError(ValueError):
    """The user's input is wrong: config, data, checkpoint or path (exit status 2).

    Args:
        problems: One per line of output: text that names the key or path, what was given and what is allowed, or an
            object whose `str()` is such text (`resnet_cli.config.messages.Problem`).

    Attributes:
        problems: The lines of text.
        details: The problems as passed to the constructor, for programmatic use.
    """

    def __init__(self, *problems: object) -> None:
        self.details = problems
        self.problems = tuple(map(str, problems))
        super().__init__("\n".join(self.problems))


class ModelTooLargeError(InputError):
    """The weights of a model do not fit into the memory of the machine."""


class InUseError(InputError):
    """Another process is writing to a folder (exit status 2)."""


class DivergedError(RuntimeError):
    """Training met a non-finite loss, gradient or buffer (exit status 3)."""


class MachineError(OSError):
    """The machine failed: disk full, no permission, no shared memory (exit status 4)."""


class PrunedError(RuntimeError):
    """A search pruned the run: it counts as done and keeps its best epoch so far."""


class JobFailedError(RuntimeError):
    """A job of a sweep did not finish; the reason was printed when it happened (exit status 1)."""


class ComputationError(RuntimeError):
    """The device cannot compute a step as the config asks (exit status 1)."""


class NotIdenticalError(JobFailedError):
    """A resumed or reproduced run is not identical to the run it should match (exit status 1)."""


class ParityError(JobFailedError):
    """The outputs of an exported file differ from those of the run it was exported from (exit status 1)."""


class StoppedError(BaseException):
    """A signal stopped the run after the step was finished and saved (exit status 128 + signal)."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(f"stopped by signal {signum}")


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error says that the memory of a device, or the main memory, is full."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    message = str(error)
    if any(text in message for text in NO_ALGORITHM):
        return _has_lacked_device_memory()
    return any(text in message for text in OUT_OF_MEMORY)


def _has_lacked_device_memory() -> bool:
    """Return True if an allocation on a CUDA device has failed in this process."""
    torch = sys.modules.get("torch")  # it raised the error
    if torch is None or not torch.cuda.is_initialized():
        return False
    return any(torch.cuda.memory_stats(device).get("num_ooms", 0) for device in range(torch.cuda.device_count()))


def explain_computation(error: BaseException) -> ComputationError | None:
    """Return an error that says what to change in the config after torch failed to compute; None for other errors."""
    text = " ".join((str(error).strip().splitlines() or [""])[0].split())
    if is_out_of_memory(error):
        return ComputationError(
            f"out of memory: {text or type(error).__name__}: try a smaller data.batch_size, a larger "
            "trainer.accumulate or trainer.on_oom=halve, and in evaluations a smaller data.eval_batch_size"
        )
    if not isinstance(error, RuntimeError):
        return None
    operation, found, _ = text.partition(" does not have a deterministic implementation")
    if found:
        return ComputationError(
            f"trainer.deterministic=true: {operation} has no deterministic implementation on this device; "
            "use other layers or trainer.deterministic=false"
        )
    if "CUBLAS_WORKSPACE_CONFIG" in text:
        return ComputationError(
            "trainer.deterministic=true: CUDA was in use before without CUBLAS_WORKSPACE_CONFIG; "
            "set CUBLAS_WORKSPACE_CONFIG=:4096:8 in the environment"
        )
    if type(error).__module__.startswith(COMPILERS):
        return ComputationError(f"trainer.compile: {type(error).__name__}: {text}; use trainer.compile=off")
    return None


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text; the name of its class if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip()


def describe_error(error: BaseException) -> str:
    """Return an error of a user's class in one line: its text, and the line of the user's file where it came up."""
    text = first_line(error)
    if str(error).strip() and not isinstance(error, RuntimeError | ValueError | TypeError):
        text = f"{type(error).__name__}: {text}"  # the text alone may be a name: KeyError: 'x'
    return f"{text}{place_of(error)}"


def place_of(error: BaseException) -> str:
    """Return ` (nets.py:30)`, the innermost line of the user's own code in a traceback; an empty text without one."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    own = next((frame for frame in frames if _is_users(frame.filename)), None)
    return "" if own is None else f" ({Path(own.filename).name}:{own.lineno})"


def _is_users(file: str) -> bool:
    """Return whether a source file is neither one of this package, nor of an installed one, nor of Python."""
    path = Path(file)
    if file.startswith("<") or {"site-packages", "dist-packages"} & set(path.parts):
        return False
    folders = (Path(__file__).parent, sysconfig.get_path("stdlib"))
    return not any(path.is_relative_to(folder) for folder in folders)
