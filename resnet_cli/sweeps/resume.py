"""Resolve typed arguments to commands: `-m resume=SWEEP` stands for the commands stored in that sweep's folder."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from resnet_cli.config.paths import is_built_in, is_path_key
from resnet_cli.config.run_length import BUDGET, EPOCHS
from resnet_cli.config.stored import SAFE_TO_CHANGE
from resnet_cli.config.suggestions import similar_file
from resnet_cli.errors import InputError
from resnet_cli.files import expand_home
from resnet_cli.hydra_app.overrides import CONFIG_DIR, join_option_values, override_keys
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.names import format_command, quote_override
from resnet_cli.session.paths import Origin
from resnet_cli.sweeps.folder import SweepCommand, SweepDir
from resnet_cli.sweeps.hydra_internals import expand_grid
from resnet_cli.sweeps.job_facts import RECORDS
from resnet_cli.sweeps.job_keys import KEYS_NOT_IN_NAMES
from resnet_cli.sweeps.job_names import original_names

MULTIRUN_OPTIONS = ("-m", "--multirun")
ONCE = ("resume_force", "trust")  # keys that accept something when a sweep is resumed, and are not stored


@dataclass(frozen=True)
class ResolvedCommand:
    """A command to run.

    Args:
        arguments: The arguments of `resnet-train`.
        stored: The form in which `sweep.json` stores the command, if it sweeps.
        replaces: The stored command of a resumed sweep that this one replaces.
        origin: Where relative paths start from.
        typed_keys: Keys of the jobs that are changed now, with `-m resume=SWEEP KEY=VALUE`.
    """

    arguments: list[str]
    stored: SweepCommand
    replaces: SweepCommand | None = None
    origin: Origin = field(default_factory=Origin)
    typed_keys: frozenset[str] = frozenset()

    @property
    def changed_keys(self) -> frozenset[str]:
        """Keys of the jobs that were changed when the sweep was resumed, and those that only control them."""
        sweep = [key for key in override_keys(self.arguments) if key.startswith("sweep.") or key in ONCE]
        return frozenset([*override_keys(self.stored.original_overrides), *sweep])


def resolve_commands(arguments: Sequence[str]) -> Iterator[ResolvedCommand]:
    """Yield the commands to run: the typed one, or for `-m resume=SWEEP` those stored in the sweep's folder.

    Raises:
        InputError: `resume=` names no sweep, or an override would change the jobs of the sweep.
    """
    resume = [argument for argument in arguments if _key(argument) == "resume" and "=" in argument]
    is_multirun = any(argument in MULTIRUN_OPTIONS for argument in arguments)
    value = _parse_resume(resume[0], is_multirun=is_multirun) if len(resume) == 1 else None
    if is_multirun and value is not None and value != "auto":
        others = [word for word in arguments if word not in (*resume, *MULTIRUN_OPTIONS)]
        yield from _stored_commands(value, join_option_values(others))
        return
    if (
        value is not None
        and (expand_home(value, "resume") / "sweep.json").is_file()
        and not RunDir(expand_home(value, "resume")).exists
    ):
        raise InputError(f"resume={value}: a sweep; resume it with {resume_sweep_command(Path(str(value)))}")
    stored = [argument for argument in arguments if _key(argument) not in ("hydra.sweep.dir", "resume")]
    yield ResolvedCommand(list(arguments), SweepCommand(tuple(stored)))


def resume_sweep_command(folder: Path) -> str:
    """Return the command line that resumes a sweep."""
    return format_command("resnet-train", ["-m", f"resume={quote_override(folder.as_posix())}"])


def _key(argument: str) -> str:
    return override_keys([argument])[0]


def _parse_resume(override: str, *, is_multirun: bool) -> str | None:
    """Return the value of a `resume=` override, or None if it has none; invalid syntax is reported by Hydra later."""
    try:
        parsed = OverridesParser.create().parse_override(override)
        if not parsed.is_sweep_override():
            value = parsed.value()
            return None if value is None else str(value)
    except HydraException:
        return None
    if is_multirun:
        raise InputError(f"{override}: with -m it takes the folder of one sweep; quote a path that contains a comma")
    return None


def _stored_commands(value: str, overrides: Sequence[str]) -> Iterator[ResolvedCommand]:
    """Yield the commands of the sweep in folder `value`, with overrides applied to each."""
    folder = expand_home(value, "resume")
    if not folder.is_dir():
        raise InputError(f"resume={value}: no such sweep folder{similar_file(folder)}")
    if RunDir(folder).exists:
        raise InputError(f"resume={value}: a run, not a sweep; resume it without -m")
    for original in SweepDir(folder).commands():
        stored = replace(original, arguments=tuple(join_option_values(original.arguments)))
        swept = _swept_paths(stored, overrides)
        once = [override for override in overrides if _key(override) in ONCE]
        others = [override for override in overrides if _key(override) not in (*swept, *ONCE)]
        changed = _apply_overrides(stored, others, folder)
        subdir = original_names(_names(changed, once))  # it finds the folders of jobs that the user has named too
        replaced = override_keys([*once, *subdir])
        kept = [*(argument for argument in changed.arguments if _key(argument) not in replaced), *once]
        trusts = any(_key(override) == "trust" and _values(override) == ["True"] for override in once)
        origin = replace(_origin(stored, folder, others), swept=swept, trusts_modules=trusts)
        arguments = [*_with_located_configs(kept, origin, is_known=bool(stored.folders)), *subdir]
        arguments.append(f"hydra.sweep.dir={quote_override(folder.as_posix())}")
        new = [argument for argument in changed.arguments if argument not in stored.arguments]
        typed = frozenset(override_keys([*others, *new]))
        yield ResolvedCommand(arguments, changed if changed != stored else original, original, origin, typed)


def _names(command: SweepCommand, once: Sequence[str]) -> list[str]:
    """Return the overrides that name jobs in place of those of a resumed sweep.

    Args:
        command: The command with what is changed for good.
        once: Overrides that hold this time only.
    """
    names = list(command.original_overrides)
    for override in once:
        _require_one_value(override)
        if (key := _key(override)) not in (*KEYS_NOT_IN_NAMES, *override_keys(names)):
            names += [argument for argument in command.arguments if _key(argument) == key] or [key]
    return names


def _swept_paths(stored: SweepCommand, overrides: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the present location of each path that a stored command sweeps over, by key and by the path in its jobs.

    Raises:
        InputError: an override names another number of paths than the sweep has.
    """
    given = {_key(override): override for override in overrides}
    found = {}
    for argument in stored.arguments:
        key = _key(argument)
        is_safe = is_path_key(key) and not argument.startswith("-") and _is_safe(argument, stored)
        if not is_safe or not _varies(argument):
            continue
        paths = _values(argument)
        places = _values(given[key]) if key in given else paths
        if len(places) != len(paths):
            wanted = ",".join(["PATH"] * len(paths))
            raise InputError(
                f"{given[key]}: the sweep has {argument}; give a path for each in the same order, {key}={wanted}"
            )
        here = [
            str(Path(place).expanduser().absolute()) if key in given and place != "null" else place for place in places
        ]
        found[key] = dict(zip(paths, here, strict=True))
    return found


def _values(override: str) -> list[str]:
    """Return the values of an override, which has several if it sweeps; the override itself if Hydra cannot read it."""
    parser = OverridesParser.create()
    with suppress(HydraException):
        values = [parser.parse_override(job[0]).value() for job in expand_grid([override])]
        return ["null" if value is None else str(value) for value in values]
    return [override]


def _origin(stored: SweepCommand, folder: Path, overrides: Sequence[str]) -> Origin:
    """Return where the relative paths of a stored command start from; version 0.2.0 did not keep that.

    As with configs, modules of the user's own classes are those of the sweep's working folder, if that is another one.
    """
    first, *others = stored.folders or (str(Path.cwd()),)
    parents = [] if stored.folders else folder.absolute().parents
    folders = (Path(first), *(folder.absolute() / other for other in others), *parents)
    places = dict.fromkeys(place.resolve() for place in folders) if stored.folders else {}
    is_elsewhere = Path.cwd().resolve() not in places
    modules = tuple(place for place in places if is_elsewhere and place.is_dir())
    return Origin(folders, tuple(override_keys(overrides)), modules=modules)


def _with_located_configs(arguments: Sequence[str], origin: Origin, *, is_known: bool) -> list[str]:
    """Return arguments with the folders of configs that the first command found from its own working folder.

    Args:
        arguments: The stored arguments, options with their values in one word.
        origin: Where the relative paths of the command start from.
        is_known: Its working folder is known, and its configs come before those of another one.
    """
    places = [folder for folder in origin.folders if folder.resolve() != Path.cwd().resolve()]
    is_elsewhere = is_known and len(places) == len(origin.folders)
    result = list(arguments)
    for number, argument in enumerate(result):
        option, _, name = argument.partition("=")
        if option == CONFIG_DIR and (is_elsewhere or not Path(name).is_dir()):
            found = next((place / name for place in places if (place / name).is_dir()), Path(name))
            result[number] = f"{CONFIG_DIR}={found}"
    own = next((place / "conf" for place in places if (place / "conf").is_dir()), None)
    is_used = is_elsewhere or (is_known and not Path("conf").is_dir())
    is_used = is_used and own is not None and not is_built_in(own)
    return [*result, f"{CONFIG_DIR}={own}"] if is_used else result  # searched after those that were typed


def _apply_overrides(command: SweepCommand, overrides: Sequence[str], folder: Path) -> SweepCommand:
    """Return a stored command with overrides that leave its jobs the same jobs.

    Raises:
        InputError: an override would change the jobs.
    """
    is_longer, without_budget = EPOCHS in override_keys(overrides), f"{BUDGET}=null"
    overrides = [override for override in overrides if not is_longer or override.lstrip("+") != without_budget]
    for override in sorted(overrides, key=lambda text: not _key(text).startswith("hydra/")):  # before their own keys
        if not (_is_safe(override, command) or _concerns_sweep_only(override)):
            raise InputError(f"{override}: would change the jobs; hydra.sweep.dir={folder} adds further ones")
        if _is_safe(override, command):
            _require_one_value(override)
        command = _apply_override(command, _with_absolute_path(override))
    # A number of epochs replaces a time budget, which a file may have set.
    return _apply_override(command, without_budget) if is_longer else command


def _require_one_value(override: str) -> None:
    if len(_values(override)) > 1:
        raise InputError(f"{override}: all jobs of a resumed sweep get the same value; give one")


def _with_absolute_path(override: str) -> str:
    """Make a path in an override absolute if it exists: the sweep's relative paths start from another folder."""
    key, _, value = override.partition("=")
    if key == CONFIG_DIR:
        return f"{key}={Path(value).absolute()}"
    path = value.strip("\"'")
    if is_path_key(key) and path and Path(path).exists():
        return f"{key}={quote_override(str(Path(path).absolute()))}"
    return override


def _is_safe(override: str, command: SweepCommand) -> bool:
    """Return whether a run may be resumed with the override.

    Weights that the command names may have moved: where they lead to others, `plan_job` refuses it.
    """
    key, value = _key(override), override.partition("=")[2]
    has_moved = key in RECORDS and key in override_keys(command.arguments) and value not in ("", "null")
    return has_moved or bool({key, key.split(".")[0]} & SAFE_TO_CHANGE)


def _concerns_sweep_only(override: str) -> bool:
    """Return whether the override configures Hydra or the sweep, or is an option of the command line."""
    return _key(override).startswith(("hydra/", "hydra.", "sweep.")) or override.startswith("-")


def _varies(override: str) -> bool:
    """Return whether an override gives several values."""
    try:
        return bool(OverridesParser.create().parse_override(override).is_sweep_override())
    except HydraException:
        return True


def _apply_override(command: SweepCommand, override: str) -> SweepCommand:
    arguments, originals = list(command.arguments), list(command.original_overrides)
    key = _key(override)
    if key.startswith("hydra/") and override not in arguments:  # another launcher or sweeper has other options
        options = f"{key.replace('/', '.')}."
        arguments = [argument for argument in arguments if not _key(argument).startswith(options)]
    former = [argument for argument in arguments if _key(argument) == key]
    if (_is_safe(override, command) or key == BUDGET) and key not in override_keys(originals):
        if any(_varies(argument) for argument in former):
            raise InputError(f"{override}: the sweep has {former[0]}, which cannot be changed for all its jobs")
        originals += former or [key]
    arguments = [override if argument in former else argument for argument in arguments]
    arguments = arguments if former else [*arguments, override]
    return replace(command, arguments=tuple(arguments), original_overrides=tuple(originals))
