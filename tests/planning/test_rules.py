"""The rules: each names facts that exist, sets keys that exist, and what is typed wins."""

import itertools

import pytest

from resnet_cli.errors import InputError
from resnet_cli.planning.conditions import LIMITS, holds
from resnet_cli.planning.plan_file import format_override
from resnet_cli.planning.rules import make_plan, read_rules
from resnet_cli.planning.wording import Wording
from resnet_cli.session.data_checks import RARE_FROM
from tests.support.settings import problems_of, settings_of

LEVELS = ("quick", "good", "best")
FACTS = {
    "images": 5000, "classes": 10, "labels": "single", "rarest": 400, "median_class": 500, "rare_classes": 0,
    "repeated_classes": 10,
    "imbalance": 1.2, "channels": 3, "grey": False, "height": 32, "width": 32,
    "short_side": 32, "short_side_spread": 1.0, "long_side": 32, "aspect": 1.0,
    "damaged": 0, "duplicates": 0.0, "neighbour_accuracy": 0.3, "mirrored": 0.97, "upside_down": 0.6, "turned": 0.4,
    "colour_accuracy": 0.1, "scale_accuracy": 0.0,
}  # fmt: skip
MACHINE = {
    "budget": None,
    "planning_seconds": 0.0,
    "can_resize": False,
    "resize": None,
    "device": "cpu",
    "bf16": True,
    "weights": (),
    "holds_out": True,
    "validates": True,
    "start": None,
    "class_weights": None,
    "least_batch": 1,
    "net_class": None,
    "stem": None,
}
# Facts by which data differ, with values on both sides of every limit.
VARIED = {
    "images": [60, 5000, 60000],
    "mirrored": [None, 0.5, 1.0],
    "channels": [1, 3],
    "imbalance": [1.0, 5.0, 50.0],
    "labels": ["single", "multi"],
    "median_class": [5, 500],
}


def plan(level="good", typed=None, machine=None, rate=lambda net, side, batch_size: 1000.0, **facts):
    facts = {**FACTS, **facts}
    return make_plan(level, facts, typed or {}, {**MACHINE, **(machine or {})}, rate, lambda held_out: facts["images"])


def values(made):
    return {choice.key: choice.value for choice in made.choices}


def all_rules():
    return [*(read_rules()[name] for name in ("validation", "batch_size", "resize")), *read_rules()["rules"]]


def test_the_time_that_reading_the_images_took_is_not_left_for_epochs():
    fast, slow, late = (
        plan(machine={"budget": 300.0, "planning_seconds": spent}).epochs for spent in (0.0, 150.0, 900.0)
    )
    assert late == 1
    assert late < slow <= fast / 2


def test_images_that_a_run_reads_again_take_their_time_again():
    def epochs(planning_seconds, reading):
        machine = {**MACHINE, **RESIZED, "budget": 300.0, "planning_seconds": planning_seconds}
        return make_plan(
            "good", FACTS, {}, machine, lambda net, side, batch_size: 1000.0, lambda held_out: 5000,
            reading=lambda side, resize: reading if (side, resize) == (32, "crop") else 0.0,
        ).epochs  # fmt: skip

    assert epochs(50.0, 100.0) == epochs(150.0, 0.0) < epochs(50.0, 0.0)


def test_a_plan_is_the_same_for_the_same_facts():
    assert plan() == plan()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("side", [10, 16, 28, 32, 50, 64, 224])
def test_every_combination_of_facts_gives_a_valid_config(level, side):
    for combination in itertools.product(*VARIED.values()):
        facts = dict(zip(VARIED, combination, strict=True))
        made = plan(level, height=side, width=side, short_side=side, **facts)
        assert all(choice.reason and "{" not in choice.reason and choice.evidence for choice in made.choices)
        assert len({choice.key for choice in made.choices}) == len(made.choices)


@pytest.mark.parametrize("case", [case for rule in all_rules() for case in rule["cases"]], ids=str)
def test_every_case_sets_keys_that_exist(case):
    data = ["data=image_folder", "data.root=DIR"] if "data.resize" in case["set"] else []
    plain = {key: value["value"] if isinstance(value, dict) else value for key, value in case["set"].items()}
    overrides = [format_override(key, value) for key, value in plain.items()]
    assert problems_of(settings_of(*data, *overrides)) == []


@pytest.mark.parametrize("net", read_rules()["nets"] + read_rules()["pretrained_nets"], ids=lambda net: net["name"])
def test_every_net_can_be_composed(net):
    assert problems_of(settings_of(*(format_override(key, value) for key, value in net["set"].items()))) == []


def test_every_rule_says_what_was_measured():
    assert all(rule["evidence"] for rule in all_rules())
    assert all(rule["about"] for rule in read_rules()["rules"])


def test_what_is_typed_wins_and_is_planned_around():
    made = plan(typed={"data.batch_size": 16, "optimizer.lr": 0.3, "model": "resnet56"})
    chosen = values(made)
    assert not {"data.batch_size", "optimizer.lr", "model"} & set(chosen)
    assert chosen["optimizer.weight_decay"] == 5e-4
    assert {"data.batch_size", "optimizer.lr"} <= set(made.typed)
    reasons = {choice.key: choice.reason for choice in plan(typed={"data.batch_size": 16}).choices}
    assert reasons["optimizer.lr"].endswith("for 16 by the square root of their size")
    assert "learning rate" not in reasons["optimizer"]


def test_muon_is_chosen_where_it_costs_little_and_was_measured():
    assert values(plan())["optimizer"] == "muon"
    assert values(plan(typed={"model": "resnet20", "model.width": 2}))["optimizer"] == "muon"
    slow_or_unknown = {"resnet18": {}, "resnet56": {}, "resnet20": {"height": 64, "width": 64, "short_side": 64}}
    for model, facts in slow_or_unknown.items():
        assert values(plan(typed={"model": model}, **facts))["optimizer"] == "sgd"
    with_resnet18 = plan(machine={"budget": 1e6, "device": "cuda"})
    assert values(with_resnet18)["optimizer"] == "sgd"


def test_classes_are_drawn_equally_only_where_the_rarest_has_very_few_images():
    few = {"imbalance": 25.0, "rarest": 6}
    assert values(plan(**few))["data.sampler"] == "balanced"
    assert values(plan(**{**few, "rarest": 3}))["data.sampler"] == "balanced"
    unlike = {"imbalance": 50.0, "rarest": 16}, {"imbalance": 50.0, "rarest": 2}, {"imbalance": 5.0, "rarest": 6}
    for facts in (*unlike, {**few, "labels": "multi"}):
        assert "data.sampler" not in values(plan(**facts))
    assert "data.sampler" not in values(plan(machine={"class_weights": "balanced"}, **few)), "weighted twice"


def test_options_of_the_usual_optimizer_that_are_typed_keep_it():
    chosen = values(plan(typed={"optimizer.nesterov": True}))
    assert (chosen["optimizer"], chosen["optimizer.lr"]) == ("sgd", 0.05)


@pytest.mark.parametrize("batch_size", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("model", ["resnet20", "resnet18"])
def test_learning_rates_grow_with_the_batch(model, batch_size):
    def rate(size):
        return values(plan(typed={"model": model, "data.batch_size": size}))["optimizer.lr"]

    assert rate(batch_size // 2) <= rate(batch_size) <= rate(2 * batch_size)
    assert rate(32) < rate(128)


@pytest.mark.parametrize("budget", [None, 600.0])
def test_epochs_that_are_typed_are_the_passes_that_are_planned_for(budget):
    assert "data.augment.erase" in values(plan(machine={"budget": budget}))
    assert "data.augment.erase" not in values(plan(typed={"trainer.epochs": 2}, machine={"budget": budget}))
    slow = {"machine": {"budget": 60.0}, "rate": lambda net, side, batch_size: 250.0}
    assert values(plan(typed={"trainer.epochs": 2}, **slow))["model"] != values(plan(**slow))["model"]


def test_epochs_of_fewer_steps_are_as_many_as_the_passes_need():
    made = plan(typed={"trainer.steps_per_epoch": 100}, images=50000)
    assert values(made)["trainer.epochs"] == 59  # 15 passes of 391 steps
    expected = "50,000 training images and no time budget: 59 epochs of these steps see each about 15 times"
    assert reasons_of(made)["trainer.epochs"] == expected
    assert values(plan(typed={"trainer.max_batches": 1000}, images=50000))["trainer.epochs"] == 15
    for epochs, is_erased in ((59, True), (50, False)):
        typed = {"trainer.epochs": epochs, "trainer.max_batches": 100}
        assert ("data.augment.erase" in values(plan(typed=typed, images=50000))) is is_erased


def test_an_option_that_is_typed_keeps_all_its_values():
    chosen = values(plan(typed={"optimizer": "adamw", "schedule": "cosine", "trainer": "deterministic"}))
    assert not any(key.startswith(("optimizer", "schedule")) for key in chosen)
    assert "trainer.epochs" in chosen  # which no option of trainer is about


def test_the_largest_net_that_gets_its_passes_in_the_budget():
    rates = {"resnet8": 4000.0, "resnet20": 1000.0, "wrn16_4": 200.0, "resnet18": 50.0}

    def rate(net, side, batch_size):
        return rates[net["model"]] / (2 if "model.width" in net else 1)

    nets = {
        seconds: values(plan(machine={"budget": seconds}, rate=rate)).get("model") for seconds in (10, 120, 600, 1e6)
    }
    assert nets == {10: "resnet8", 120: "resnet20", 600: "wrn16_4", 1e6: "wrn16_4"}
    on_a_card = {"budget": 1e6, "device": "cuda"}
    assert values(plan(machine=on_a_card, rate=rate))["model"] == "resnet18"
    made = plan(machine={"budget": 120}, rate=rate)
    assert "trainer.epochs" not in values(made)  # the time budget chooses them
    assert "1,000 images per second" in next(c.reason for c in made.choices if c.key == "model")


@pytest.mark.parametrize(
    ("facts", "flip"),
    [
        ({"mirrored": 0.93, "channels": 1}, "random"),  # as of photographs
        ({"mirrored": 0.67}, "none"),  # Fashion-MNIST
        ({"mirrored": 0.29, "channels": 1}, "none"),  # digits
        ({"mirrored": None}, "random"),
        ({"mirrored": None, "channels": 1}, "none"),
    ],
    ids=str,
)
def test_images_are_flipped_where_mirrored_ones_look_like_their_class(facts, flip):
    assert values(plan(**facts))["data.augment.flip"] == flip


def test_large_images_get_a_narrow_net_with_muon_that_has_to_get_all_its_passes():
    rates = {(1, 1, 1, 1): 500.0, (2, 2, 2, 2): 200.0}

    def rate(net, side, batch_size):
        return rates[tuple(net.get("model.layers", [0]))] if net.get("model.width") == 0.5 else 1.0

    def chosen(seconds, level="good", **facts):
        machine = {"budget": seconds, "can_resize": True}
        return values(plan(level, machine=machine, rate=rate, **{"short_side": 96, "images": 1000, **facts}))

    few, many = 1000 * 40 / 0.85 / 500.0, 1000 * 40 / 0.85 / 200.0  # seconds for 40 passes
    assert chosen(few + 5)["model.layers"] == [1, 1, 1, 1]
    assert (chosen(many + 5)["model.layers"], chosen(many + 5)["model.width"]) == ([2, 2, 2, 2], 0.5)
    assert (chosen(many + 5)["data.image_size"], chosen(many + 5)["optimizer"]) == (96, "muon")
    assert values(plan(short_side=96, machine={"can_resize": True}))["model.layers"] == [2, 2, 2, 2]
    assert values(plan("best", short_side=96, machine={"can_resize": True}))["optimizer"] == "sgd"


def test_a_net_for_muon_has_to_get_fewer_passes():
    def net(seconds, typed=None):
        rate = {"resnet8": 2000.0, "resnet20": 500.0}
        made = plan(
            typed=typed, machine={"budget": seconds}, rate=lambda net, side, batch_size: rate.get(net["model"], 1.0)
        )
        return values(made)["model"]

    enough = 5000 * 40 / 500 / 0.85  # seconds in which ResNet-20 gets 40 passes
    assert [net(share * enough) for share in (0.3, 0.4)] == ["resnet8", "resnet20"]
    assert [net(share * enough, {"trainer.epochs": 40}) for share in (0.4, 1.05)] == ["resnet8", "resnet20"]
    sgd = {"optimizer.nesterov": True}
    assert [net(share * enough, sgd) for share in (0.4, 0.95, 1.05)] == ["resnet8", "resnet8", "resnet20"]


@pytest.mark.parametrize(
    ("facts", "epochs", "net", "is_augmented"),
    [
        ({}, 40, "wrn16_4", True),
        ({"mirrored": 0.9}, 40, "wrn16_4", True),
        ({}, 20, "wrn16_4", False),
        ({}, 40, "resnet8", False),
        ({"channels": 1}, 40, "wrn16_4", False),
        ({"grey": True, "mirrored": 0.9}, 40, "wrn16_4", False),
        ({"mirrored": 0.3}, 40, "wrn16_4", False),
        ({"images": 4000}, 40, "wrn16_4", False),
    ],
)
def test_few_photographs_are_augmented_further_for_a_wide_net(facts, epochs, net, is_augmented):
    def rate(values, side, batch_size):
        return 1e4 if net in ("wrn16_4", values.get("model")) else 1.0

    facts = {"images": 400, "mirrored": None, **facts}
    machine, typed = {"budget": 100}, {"trainer.epochs": epochs}
    made = values(plan(typed=typed, machine=machine, rate=rate, **facts))
    assert made["model"] == net
    given = values(plan(typed={**typed, "model": net}, machine=machine, rate=rate, **facts))
    for chosen in (made, given):
        assert chosen.get("data.augment.policy") == ("trivial_augment" if is_augmented else None)


def test_nets_after_one_that_is_too_slow_are_not_measured():
    measured = []

    def rate(net, side, batch_size):
        measured.append(net["model"])
        return 1000.0 / len(measured)

    plan(machine={"budget": 60}, rate=rate)
    assert measured == ["resnet8"]


def test_nets_are_timed_with_the_batches_that_they_get():
    sizes = set()

    def rate(net, side, batch_size):
        sizes.add(batch_size)
        return 1000.0

    for images, typed in ((500, {}), (5000, {}), (60000, {}), (500, {"data.batch_size": 8})):
        plan(typed=typed, machine={"budget": 60}, rate=rate, images=images)
    assert sizes == {32, 64, 128, 8}


def test_a_net_whose_weights_are_at_hand_comes_first_and_needs_fewer_passes():
    def rate(net, side, batch_size):
        return {"resnet18": 100.0, "resnet50": 30.0}.get(net.get("model.name"), 200.0)

    def made(seconds, **others):
        machine = {"budget": seconds, "weights": ["resnet18", "resnet50"], **others.pop("machine", {})}
        return plan(machine=machine, rate=rate, **{"short_side": 224, "height": 224, "width": 224, **others})

    chosen = values(made(1500))
    assert (chosen["model.name"], chosen["model.weights"]) == ("resnet18", "DEFAULT")
    assert (chosen["optimizer.lr"], chosen["optimizer.head_lr"], chosen["schedule"]) == (0.01, 0.1, "cosine")
    assert values(made(15000))["model.name"] == "resnet50"
    assert values(made(None))["model.name"] == "resnet18"
    from_scratch = (
        made(60),
        made(1500, channels=1),
        made(1500, machine={"start": "run"}),
        made(1500, machine={"weights": []}),
    )
    assert all("model.weights" not in values(plan) for plan in from_scratch)


def test_images_are_reduced_until_a_net_is_fast_enough():
    def rate(net, side, batch_size):
        return 4000.0 * (32 / side) ** 2

    sides = {
        seconds: values(
            plan(machine={"budget": seconds, "can_resize": True}, rate=rate, short_side=300, height=64, width=64)
        )["data.image_size"]
        for seconds in (22, 60, 300, 5000)
    }
    assert sides == {22: 24, 60: 32, 300: 64, 5000: 224}


@pytest.mark.parametrize(
    ("files", "chosen"), [(8, 16), (16, 16), (20, 20), (28, 28), (32, 32), (50, 50), (64, 64), (70, 64), (96, 96)]
)
def test_small_files_keep_their_size(files, chosen):
    made = plan(machine={"can_resize": True}, short_side=files, height=64, width=64)
    assert values(made)["data.image_size"] == chosen


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"imbalance": RARE_FROM - 0.1}, 1),
        ({"imbalance": RARE_FROM}, 0),
        ({"imbalance": RARE_FROM, "labels": "multi"}, 1),
        ({"rarest": 5}, 0),
    ],
    ids=str,
)
def test_a_rare_class_is_warned_of_where_a_run_would_not_name_it(facts, expected):
    assert len(plan(**{"rarest": 4, **facts}).warnings) == expected


def test_warnings_name_what_to_look_at():
    made = plan(rarest=2, duplicates=0.2, scale_accuracy=0.6, colour_accuracy=0.9)
    assert len(made.warnings) == 4
    assert "20 %" in made.warnings[1]
    assert plan().warnings == ()


def test_conditions():
    facts = {"a": 3, "b": None, "c": "x"}
    assert holds({}, facts)
    assert holds({"a": {"at_least": 3, "below": 4}, "c": "x"}, facts)
    assert not holds({"a": {"below": 3}}, facts)
    assert holds({"c": {"is_in": ["x", "y"]}}, facts)
    assert not holds({"b": {"below": 3}}, facts)
    assert holds({"b": None}, facts)
    with pytest.raises(KeyError):
        holds({"d": 1}, facts)
    assert set(LIMITS) == {"below", "at_least", "is_in"}


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (1e5, "about 567 epochs in the budget, at least 14 are needed"),
        (60, "about 1 epoch in the budget, fewer than the 14 it needs"),
        (3, "0.05 of an epoch in the budget"),
        (0.5, "hardly any of an epoch in the budget"),
    ],
)
def test_the_reason_says_how_many_epochs_there_are_and_how_many_are_needed(rate, words):
    made = plan(machine={"budget": 100}, rate=lambda net, side, batch_size: rate)
    reason = next(choice.reason for choice in made.choices if choice.key == "model")
    assert words in reason


def test_a_net_that_does_not_fit_into_memory_is_not_chosen():
    made = plan(machine={"budget": 100}, rate=lambda net, side, batch_size: 0.0 if "wrn" in str(net) else 1e6)
    assert values(made)["model"] == "resnet20"


def test_learning_rates_are_those_of_the_batch_size():
    muon = {size: values(plan(typed={"data.batch_size": size})).get("optimizer.lr") for size in (4, 32, 64, 128, 512)}
    assert muon == {4: 0.025, 32: 0.07, 64: 0.1, 128: 0.14, 512: 0.28}
    typed = {"optimizer.nesterov": True}
    sgd = {size: values(plan(typed={"data.batch_size": size, **typed}))["optimizer.lr"] for size in (4, 32, 128, 512)}
    assert sgd == {4: 0.0031, 32: 0.025, 128: 0.1, 512: 0.4}


@pytest.mark.parametrize(
    ("typed", "images", "rate", "reason"),
    [
        ({}, 115, 0.13, "for 115 (all training images) by the square root of their size"),
        ({}, 64, 0.1, "the best of four for 5,000 photographs in batches of this size; elsewhere 0.2 was"),
        ({}, 60000, 0.28, "as for batches of 512, since rates were tried with batches of 16 to 128 only"),
        ({}, 2000, 0.28, "these are of 2,000 (all training images)"),
        ({"optimizer.nesterov": True}, 115, 0.09, "in proportion for batches of 115 (all training images)"),
        ({"optimizer.nesterov": True}, 5000, 3.9, "in proportion for batches of 5,000 (all training images)"),
        ({"optimizer.nesterov": True}, 60000, 6.4, "as for batches of 8,192"),
    ],
)  # fmt: skip
def test_learning_rates_are_not_scaled_to_more_images_than_a_step_has_or_rates_were_tried_for(
    typed, images, rate, reason
):
    made = plan(typed={"data.batch_size": 10000, **typed}, images=images)
    choice = next(choice for choice in made.choices if choice.key == "optimizer.lr")
    assert choice.value == rate
    assert reason in choice.reason
    assert values(made).get("optimizer.sgd_lr", rate) == rate


@pytest.mark.parametrize(("least", "size"), [(32, 32), (48, 64), (64, 64), (300, 512)])
def test_a_batch_has_images_enough_for_what_is_typed(least, size):
    made = plan(images=500, machine={"least_batch": least})
    assert values(made)["data.batch_size"] == size
    assert [choice.key for choice in made.choices].count("data.batch_size") == 1
    typed = plan(images=500, machine={"least_batch": least}, typed={"data.batch_size": 16})
    assert "data.batch_size" not in values(typed)


def test_nets_are_timed_with_no_more_images_than_there_are():
    sizes = set()

    def rate(net, side, batch_size):
        sizes.add(batch_size)
        return 1000.0

    plan(typed={"data.batch_size": 10000}, machine={"budget": 60}, rate=rate, images=115)
    assert sizes == {115}


def test_a_net_that_was_chosen_is_measured_for_the_budget():
    def rate(net, side, batch_size):
        assert "model" not in net
        return 1000.0 * (32 / side) ** 2

    files = {"short_side": 224, "height": 64, "width": 64}
    made = plan(typed={"model": "resnet50"}, machine={"budget": 300, "can_resize": True}, rate=rate, **files)
    chosen = {choice.key: choice for choice in made.choices}
    assert chosen["data.image_size"].value == 32  # 50 epochs, of which 40 are wanted
    assert "the net that you chose gets about 50 epochs in the budget" in chosen["data.image_size"].reason
    slow = plan(typed={"model": "resnet50"}, machine={"budget": 20}, rate=rate)
    assert "data.augment.erase" not in values(slow)  # it gets two epochs


def test_a_typed_key_of_the_model_leaves_the_choice_of_a_net_that_takes_it():
    def accepts(net):
        return net["model"] == "resnet18"

    made = make_plan(
        "best", {**FACTS, "short_side": 64, "height": 64, "width": 64}, {"model.dropout": 0.1}, MACHINE,
        lambda net, side, batch_size: 1000.0, lambda held_out: 5000, accepts,
    )  # fmt: skip
    assert values(made)["model"] == "resnet18"
    refused = make_plan(
        "best", FACTS, {"model.dropout": 0.1}, MACHINE, lambda net, side, batch_size: 1000.0,
        lambda held_out: 5000, lambda net: net["model"] == "resnet20",
    )  # fmt: skip
    assert values(refused)["model"] == "resnet20"  # the usual net of this level does not take the key
    narrow = plan(
        typed={"model.width": 1}, machine={"budget": 1000},
        rate=lambda net, side, batch_size: 1.0 if net["model"] == "wrn16_4" else 1000.0,
    )  # fmt: skip
    reason = next(choice.reason for choice in narrow.choices if choice.key == "model")
    assert reason.startswith("ResNet-20 trains"), "the one of width 2 has another width than the typed one"
    affordable = plan("best", typed={"model.width": 3}, machine={"budget": 1000})
    assert {key for key in values(affordable) if key.startswith("model")} == {"model"}


def test_a_run_to_start_from_keeps_the_net_of_the_config():
    made = plan(machine={"start": "run"})
    assert "model" not in values(made)
    assert values(made)["optimizer.lr"] == 0.01


def test_grey_images_are_not_taken_for_photographs():
    flips = {
        (channels, grey, labels): values(plan(mirrored=None, channels=channels, grey=grey, labels=labels))[
            "data.augment.flip"
        ]
        for channels, grey in ((3, False), (3, True), (1, True), (4, False))
        for labels in ("single", "multi")
    }
    assert {key for key, flip in flips.items() if flip == "random"} == {(3, False, "single"), (3, False, "multi")}
    reasons = [choice.reason for choice in plan(mirrored=None, labels="multi").choices if choice.key.endswith("flip")]
    assert "not checked" in reasons[0]


def test_seconds_of_starting_are_left_out_of_short_budgets():
    def epochs(budget):
        made = plan(machine={"budget": budget}, rate=lambda net, side, batch_size: 5000.0)
        return next(choice.reason for choice in made.choices if choice.key == "model")

    assert "hardly any" in epochs(5)
    assert "about 9 epochs" in epochs(20)
    assert "about 232 epochs" in epochs(300)


def test_a_net_that_was_chosen_keeps_the_sizes_that_it_takes():
    def rate(net, side, batch_size):
        if side < 128:
            raise InputError("too small")
        return 1.0

    files = {"short_side": 224, "height": 64, "width": 64}
    made = plan(typed={"model": "torchvision"}, machine={"budget": 300, "can_resize": True}, rate=rate, **files)
    assert values(made)["data.image_size"] == 128
    with pytest.raises(InputError, match="too small"):
        plan(typed={"model": "torchvision"}, machine={"budget": 300, "can_resize": True}, rate=rate, short_side=64)


@pytest.mark.parametrize(
    ("net_class", "stem", "side"),
    [
        ("resnet_cli.models.CifarResNet", None, 32),
        ("resnet_cli.models.StagedResNet", "cifar", 32),
        ("resnet_cli.models.StagedResNet", "imagenet", 224),
        ("own.Net", None, 224),
    ],
)
def test_a_net_without_a_row_gets_the_sizes_of_its_class(net_class, stem, side):
    machine = {"can_resize": True, "net_class": net_class, "stem": stem}
    for given in ({"typed": {"model": "mine"}}, {"machine": {**machine, "start": "run"}}):
        made = plan(**{"machine": machine, **given}, short_side=300, height=64, width=64)
        assert values(made)["data.image_size"] == side


def test_a_class_of_one_or_two_images_is_warned_of_with_what_to_do():
    for imbalance in (2.0, 50.0):
        (one,), (two,) = (plan(rarest=count, imbalance=imbalance).warnings for count in (1, 2))
        assert one.startswith(
            "the rarest class has 1 training image: add images of it, or leave it out with data.classes"
        )
        assert two.startswith("the rarest class has 2 training images: add")
    assert "add images" not in str(plan(rarest=3, imbalance=2.0).warnings)


def test_the_best_epoch_is_only_selected_where_there_is_validation():
    unequal = {"imbalance": 4.0, "rarest": 100}
    assert values(plan(**unequal))["trainer.select_by"] == "val_balanced_accuracy"
    assert "trainer.select_by" not in values(plan(machine={"validates": False, "holds_out": False}, **unequal))


def reasons_of(made):
    return {choice.key: choice.reason for choice in made.choices}


def test_numbers_of_reasons_have_their_noun_in_the_right_form():
    one = reasons_of(plan(images=1, median_class=1, channels=1, mirrored=None, height=1, width=1))
    assert one["data.val_fraction"].startswith("the median class has 1 image:")
    assert one["data.batch_size"] == "1 training image: 1 batch of 32"
    assert one["data.augment.crop"] == "a pixel is more than an eighth of 1 pixel"
    assert one["trainer.epochs"].startswith("1 training image and")
    assert reasons_of(plan(images=60000))["data.batch_size"] == "60,000 training images"
    assert "1 pixel," in reasons_of(plan(machine={"can_resize": True}, short_side=1))["data.image_size"]
    for rate, words in ((1, "trains 1 image per"), (0.5, "trains 0.5 images per"), (1234, "trains 1,234 images per")):
        made = plan(machine={"budget": 100}, rate=lambda *_, rate=rate: float(rate))
        assert words in reasons_of(made)["model"]
    assert "about 2,000 epochs" in reasons_of(plan(typed={"trainer.epochs": 2000}))["data.augment.erase"]
    assert "about 20.5 epochs" in reasons_of(plan(typed={"trainer.epochs": 20.5}))["data.augment.erase"]


@pytest.mark.parametrize(
    ("imbalance", "words"), [(216.0, "216 times"), (216.4, "216 times"), (3.45, "3.45 times"), (4.0, "4 times")]
)
def test_ratios_have_no_needless_decimals(imbalance, words):
    made = plan(imbalance=imbalance, rarest=6)
    assert f"has {words} the images" in reasons_of(made)["trainer.select_by"]
    if imbalance >= 10:
        assert f"which has {words} its images" in reasons_of(made)["data.sampler"]


RESIZED = {"can_resize": True, "resize": "crop"}
LINES = {"short_side": 32, "long_side": 256, "aspect": 8.0, "height": 64, "width": 64}


def test_long_files_are_padded_and_not_cropped():
    made = plan(machine=RESIZED, **LINES)
    assert (values(made)["data.resize"], values(made)["data.image_size"]) == ("pad", 224)
    reasons = reasons_of(made)
    assert (
        reasons["data.resize"]
        == "files are 8 times as long as they are wide, and a square crop would lose 88 % of them"
    )
    assert reasons["data.image_size"] == "files of 32 x 256 pixels, reduced and padded to squares"
    assert values(plan(machine={**RESIZED, "can_resize": False}, **LINES))["data.resize"] == "pad"  # of a typed side
    for resize, aspect in ((None, 8.0), ("squash", 8.0), ("crop", 1.99), ("crop", 1.0)):
        assert "data.resize" not in values(plan(machine={**RESIZED, "resize": resize}, **{**LINES, "aspect": aspect}))


def test_a_crop_that_is_typed_is_kept_and_named():
    made = plan(machine=RESIZED, typed={"data.resize": "crop"}, **LINES)
    assert "data.resize" not in values(made)
    assert "data.resize" in made.typed
    assert values(made)["data.image_size"] == 32
    assert reasons_of(made)["data.image_size"] == "files of 32 x 256 pixels, cropped to squares"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({}, "files of 32 pixels, as they are"),
        ({"short_side": 33, "long_side": 44, "aspect": 1.33}, "files of 33 x 44 pixels, cropped to squares"),
        ({"short_side": 300, "long_side": 300}, "files of 300 pixels, reduced"),
        ({"short_side": 300, "long_side": 400, "aspect": 1.33},
         "files of 300 x 400 pixels, reduced and cropped to squares"),
    ],
)  # fmt: skip
def test_only_files_that_keep_all_pixels_are_as_they_are(facts, reason):
    assert reasons_of(plan(machine=RESIZED, **facts))["data.image_size"] == reason


def test_an_epoch_takes_time_besides_its_steps():
    made = plan(images=115, machine={"budget": 60}, rate=lambda net, side, batch_size: 190.0)
    reason = next(choice.reason for choice in made.choices if choice.key == "model")
    assert "about 71 epochs in the budget" in reason  # 83 by the rate alone


def test_nouns_count_and_other_specifications_format_numbers():
    text = "{n:image} of {classes:class}, {ratio:times}, {ratio:.2g}, {n:,}, {n:d}"
    assert (
        Wording().format(text, n=1200, classes=1, ratio=2.51) == "1,200 images of 1 class, 2.51 times, 2.5, 1,200, 1200"
    )
