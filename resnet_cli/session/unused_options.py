"""Options that the user typed and that have no effect with the rest of the config."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resnet_cli.config.run_config import SEED_PARTS
from resnet_cli.config.stored import flat


@dataclass(frozen=True)
class _Dependency:
    """Keys that have an effect only if another one has a certain value.

    Args:
        keys: The keys. A key stands for those below it, too.
        on: The key that they depend on, or one of `FACTS`.
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


# What is known of a run besides its config.
FACTS = ("has validation", "is job of sweep", "is resumed", "has ranks", "is random")
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
    _Dependency((EARLY_STOPPING, "trainer.select_by"), "has validation", VALIDATION),
    _Dependency(RANKS, "has ranks", "trainer.processes"),
    _Dependency(("sweep",), "is job of sweep", "-m"),
    _Dependency(("resume_force",), "is resumed", "resume=RUN"),
    _Dependency(("seed_augment",), "is random", "augmentation or dropout"),
)  # fmt: skip


def unused_options(
    settings: Mapping[str, Any], overrides: Sequence[str], facts: Mapping[str, bool] | None = None
) -> list[str]:
    """Return a line for each key that was typed and has no effect: what it needs first.

    Early stopping is named wherever it was set.

    Args:
        settings: The config of the run.
        overrides: The overrides that were typed.
        facts: Values of `FACTS`; those that are missing count as true.
    """
    values = {**dict.fromkeys(FACTS, True), **flat(settings), **(facts or {})}
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
