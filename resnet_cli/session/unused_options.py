"""Options that the user typed and that have no effect with the rest of the config."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from resnet_cli.config.run_config import SEED_PARTS
from resnet_cli.config.stored import flat


@dataclass(frozen=True)
class RunFacts:
    """What options depend on besides the config. By default, none of them is without effect.

    Attributes:
        has_validation: There are validation images.
        has_ranks: Several processes train the run.
        is_job_of_sweep: The run is a job of a sweep.
        is_resumed: `resume` is set.
        is_random: Steps draw random numbers, as augmentation and dropout do.
    """

    has_validation: bool = True
    has_ranks: bool = True
    is_job_of_sweep: bool = True
    is_resumed: bool = True
    is_random: bool = True


FACTS = tuple(own.name for own in fields(RunFacts))


@dataclass(frozen=True)
class _Dependency:
    """Keys that have an effect only if another one has a certain value.

    Args:
        keys: The keys. A key stands for those below it, too.
        on: The key that they depend on, or an attribute of `RunFacts`.
        needs: What has to be set, for the user.
        values: The values that `on` may have; without any, all but null, false, 0, `none` and an empty list.
    """

    keys: tuple[str, ...]
    on: str
    needs: str
    values: tuple[str | None, ...] = ()

    def is_met(self, values: Mapping[str, Any]) -> bool:
        """Return True if the keys have an effect, as far as is known: a user's own class may use them in any way."""
        owner = self.keys[0] if self.on in FACTS else self.on
        target = str(values.get(f"{owner.partition('.')[0]}._target_", "resnet_cli."))
        if not target.startswith("resnet_cli.") or ("." in self.on and self.on not in values):
            return True
        found = values.get(self.on)
        if self.values:
            return found in self.values
        return found not in (None, "none", 0, [])


def _under(prefix: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{prefix}.{name}" for name in names)


SEED_KEYS = tuple(f"seed_{part}" for part in SEED_PARTS)  # typed as `seed.augment`
EARLY_STOPPING = "trainer.early_stopping"
VALIDATION = "validation images (data.val_fraction)"
RANKS = _under("trainer", "sync_batch_norm", "collective_timeout", "max_restarts")
LOOKAHEAD = _under("trainer", "lookahead_k", "lookahead_alpha", "lookahead_power", "lookahead_buffers")
GATED = ("exclusive_gating", "shortcut_gating")
DEPENDENCIES = (
    _Dependency(("distillation",), "teacher", "teacher=RUN"),
    _Dependency(("trainer.averaging_decay",), "trainer.averaging", "trainer.averaging=ema", ("ema",)),
    _Dependency(("trainer.swa_start",), "trainer.averaging", "trainer.averaging=swa", ("swa",)),
    _Dependency(LOOKAHEAD, "trainer.averaging", "trainer.averaging=lookahead", ("lookahead",)),
    _Dependency(("trainer.cpu_bf16",), "trainer.precision", "trainer.precision=auto", ("auto",)),
    _Dependency(("trainer.resolution_multiple",), "trainer.resolution", "trainer.resolution"),
    _Dependency(_under("schedule", "warmup_start", "warmup_shape"), "schedule.warmup", "schedule.warmup"),
    # Of the nets of this package; most other such options of theirs are refused.
    _Dependency(_under("model", "shortcut", "gate_bias"), "model.residual", "model.residual=true"),
    _Dependency(("model.gate_bias",), "model.shortcut", "model.shortcut=exclusive_gating or shortcut_gating", GATED),
    _Dependency(("model.batchnorm",), "model.norm", "model.norm=null", (None,)),
    _Dependency(("model.hidden_dropout",), "model.hidden_dims", "model.hidden_dims"),
    _Dependency(("data.resize",), "data.image_size", "data.image_size"),
    _Dependency(("data.augment.crop_padding",), "data.augment.crop", "data.augment.crop"),
    _Dependency(("data.augment.cutout_whole",), "data.augment.cutout", "data.augment.cutout"),
    _Dependency(("data.augment.erase_area",), "data.augment.erase", "data.augment.erase"),
    _Dependency(
        _under("data.augment", "randaugment_ops", "randaugment_magnitude"), "data.augment.policy",
        "data.augment.policy=randaugment", ("randaugment",),
    ),
    _Dependency(
        ("data.augment.autoaugment_policy",), "data.augment.policy",
        "data.augment.policy=autoaugment", ("autoaugment",),
    ),
    _Dependency(("data.augment.augmix_severity",), "data.augment.policy", "data.augment.policy=augmix", ("augmix",)),
    _Dependency((EARLY_STOPPING, "trainer.select_by"), "has_validation", VALIDATION),
    _Dependency(RANKS, "has_ranks", "trainer.processes"),
    _Dependency(("sweep",), "is_job_of_sweep", "-m"),
    _Dependency(("resume_force",), "is_resumed", "resume=RUN"),
    _Dependency(("seed_augment",), "is_random", "augmentation or dropout"),
)  # fmt: skip


def unused_options(settings: Mapping[str, Any], overrides: Sequence[str], facts: RunFacts | None = None) -> list[str]:
    """Return a line for each key that was typed and has no effect, with what it needs for that.

    Early stopping is named wherever it was set.

    Args:
        settings: The config of the run.
        overrides: The overrides that were typed.
        facts: What is known of the run; None is the default of `RunFacts`.
    """
    values = {**flat(settings), **asdict(facts or RunFacts())}
    typed = [tuple(override.lstrip("+").split("=", 1)) for override in overrides if "=" in override]
    patience = values.get(EARLY_STOPPING)
    if patience is not None and all(key != EARLY_STOPPING for key, _ in typed):
        typed.append((EARLY_STOPPING, str(patience)))
    lines = []
    for key, value in typed:
        if value.lower() in ("false", "null"):
            continue
        for dependency in DEPENDENCIES:
            depends = any(key == name or key.startswith(f"{name}.") for name in dependency.keys)
            if depends and not dependency.is_met(values):
                shown = key.replace("seed_", "seed.", 1) if key in SEED_KEYS else key
                lines.append(f"{shown}={value}: has no effect without {dependency.needs}")
                break
    return lines
