"""Options that the user typed and that have no effect with the rest of the config."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resnet_cli.config.stored import flat


@dataclass(frozen=True)
class _Dependency:
    """Keys that have an effect only if another one has a certain value.

    Args:
        keys: The keys. A key stands for those below it, too.
        on: The key that they depend on.
        needs: What has to be set, for the user.
        values: The values that `on` may have; without any, all but null, false, 0, `none` and an empty list.
    """

    keys: tuple[str, ...]
    on: str
    needs: str
    values: tuple[str | None, ...] = ()

    def is_met(self, values: Mapping[str, Any]) -> bool:
        """Return True if the keys have an effect, as far as is known: a user's own class may use them in any way."""
        target = str(values.get(f"{self.on.partition('.')[0]}._target_", "resnet_cli."))
        if not target.startswith("resnet_cli.") or ("." in self.on and self.on not in values):
            return True
        found = values.get(self.on)
        if self.values:
            return found in self.values
        return found not in (None, "none", 0, [])


def _under(prefix: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{prefix}.{name}" for name in names)


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
)  # fmt: skip


def unused_options(settings: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """Return a line for each key that was typed and has no effect: what it needs first.

    Args:
        settings: The config of the run.
        overrides: The overrides that were typed.
    """
    values = flat(settings)
    lines = []
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        for dependency in DEPENDENCIES:
            depends = any(key == name or key.startswith(f"{name}.") for name in dependency.keys)
            if depends and not dependency.is_met(values):
                lines.append(f"{key}={value}: has no effect without {dependency.needs}")
                break
    return lines
