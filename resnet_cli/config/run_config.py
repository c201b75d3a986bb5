"""RunConfig: the top-level keys of a config, their types and their defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from resnet_cli.config.ranges import Between, NotEmpty

Node = Mapping[str, Any]  # a `_target_` and its arguments

# The loss of configs without one, which are those of runs made before the group was added.
DEFAULT_LOSS: Node = {"_target_": "resnet_cli.losses.CrossEntropy"}
DEFAULT_DISTILLATION: Node = {"_target_": "resnet_cli.losses.Distillation", "temperature": 4.0, "weight": 0.9}

SEED_PARTS = ("init", "order", "augment")  # `seed.init` on the command line is the key `seed_init`
OPTIONAL_KEYS = (
    "loss",
    "teacher",
    "distillation",
    "plan",
    *(f"seed_{part}" for part in SEED_PARTS),
)

# Keys that control how a run is started. They are not part of its identity, so neither checkpoints nor `config.yaml`
# store them.
CONTROL_KEYS = ("resume", "init_from", "reproduce", "find", "resume_force", "trust", "verify_resume", "sweep")

NEEDED_GROUPS = ("model", "optimizer", "schedule", "data", "trainer")  # groups of which an option must be chosen
NULL_GROUPS = ("logger", "plan", "experiment")  # groups that may be null


LARGEST_SEED = 9223372036854775807


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The config of one run. The fields are the schema of the top level: adding a field adds a key.

    Args:
        model: Group `model`.
        optimizer: Group `optimizer`.
        schedule: Group `schedule`.
        loss: Group `loss`; None is `DEFAULT_LOSS`.
        data: Group `data`.
        trainer: Group `trainer`.
        name: Name of the run.
        seed: Determines weights, order of samples, augmentation and dropout.
        seed_init: Seed of the weights; None is `seed`. On the command line it is `seed.init`, and so on.
        seed_order: Seed of the order of samples; None is `seed`.
        seed_augment: Seed of augmentation, and of dropout and the like; None is `seed`.
        resume: A run folder, or `auto` to continue from the last checkpoint in `hydra.run.dir`, if there is one.
        init_from: A run, a checkpoint or a file of weights that are loaded at the start.
        teacher: A run, or a checkpoint, whose predictions are learnt too.
        distillation: The loss of learning from `teacher`; None has temperature 4 and weight 0.9.
        plan: Level of the plan that chooses all settings not given; None chooses nothing.
        reproduce: A run that is trained again in a new folder and compared; see `resnet_cli.session.reproduction`.
        find: Instead of training, find a setting by trying it; see `resnet_cli.session.find`.
        resume_force: Resume although the config or the data have changed.
        trust: Allow classes that only a stored config names; checked before training.
        verify_resume: Instead of training, verify that a short run resumes exactly; see `resnet_cli.session.verify`.
        sweep: Options of the sweep that this run is a job of; handled before training.
        logger: Experiment loggers by name.
    """

    model: Node
    optimizer: Node
    schedule: Node
    data: Node
    trainer: Node
    name: str
    loss: Node | None = None
    seed: Annotated[int, Between(0, LARGEST_SEED)] = 0
    seed_init: Annotated[int, Between(0, LARGEST_SEED)] | None = None
    seed_order: Annotated[int, Between(0, LARGEST_SEED)] | None = None
    seed_augment: Annotated[int, Between(0, LARGEST_SEED)] | None = None
    resume: Annotated[str, NotEmpty()] | None = None
    init_from: Annotated[str, NotEmpty()] | None = None
    teacher: Annotated[str, NotEmpty()] | None = None
    distillation: Node | None = None
    plan: Literal["quick", "good", "best"] | None = None
    reproduce: Annotated[str, NotEmpty()] | None = None
    find: Literal["lr", "batch_size"] | None = None
    resume_force: bool = False
    trust: bool = False
    verify_resume: bool = False
    sweep: Node | None = None
    logger: Mapping[str, Node] | None = None

    def seed_of(self, part: str) -> int:
        """Return the seed of `init`, `order` or `augment`."""
        own: int | None = getattr(self, f"seed_{part}")
        return self.seed if own is None else own

    def own_seeds(self) -> dict[str, int]:
        """Return the seeds of parts that have one of their own."""
        return {part: self.seed_of(part) for part in SEED_PARTS if getattr(self, f"seed_{part}") is not None}

    def stored(self) -> dict[str, Any]:
        """Return the keys that checkpoints and `config.yaml` store: all except `CONTROL_KEYS`.

        Keys of `OPTIONAL_KEYS` that are null are left out, and so is a `distillation` without effect: runs made before
        these keys existed store none.
        """
        kept = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in CONTROL_KEYS}
        if self.teacher is None and self.distillation == DEFAULT_DISTILLATION:
            del kept["distillation"]
        return {key: value for key, value in kept.items() if key not in OPTIONAL_KEYS or value is not None}
