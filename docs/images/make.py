"""Makes the pictures of README and docs again, each by the commands that stand beside it here.

    python docs/images/make.py                      every picture that needs nothing but the bundled digits
    python docs/images/make.py digits.png signal.png
    python docs/images/make.py --photographs DIR    those of photographs too, DIR/train/CLASS and DIR/test/CLASS: hours
    python docs/images/make.py --list               the pictures and their commands; makes nothing

Seeds are fixed and each command has one thread, so with one version of torch on one machine a picture is the same
each time. Runs are kept in outputs/pictures and are not trained again. The notebook holds its own pictures: `notebook`
runs it from top to bottom and stores what it prints and draws (pip install nbclient ipykernel).
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

IMAGES = Path(__file__).parent
REPOSITORY = IMAGES.parents[1]
NOTEBOOK = REPOSITORY / "docs" / "residual_networks.ipynb"
RUNS = REPOSITORY / "outputs" / "pictures"
PHOTOGRAPHS = "data=image_folder data.root=DIR data.image_size=32"


@dataclass(frozen=True)
class Picture:
    """A picture: the commands that make it, in order, and the file that the last one leaves."""

    commands: tuple[str, ...]
    made: str

    @property
    def needs_photographs(self) -> bool:
        """Whether a command reads images that do not ship with the package."""
        return any("DIR" in command for command in self.commands)


def experiment(name: str, seeds: int = 1, data: str = "") -> Picture:
    """Return the picture of training curves of an experiment over seeds."""
    place = f"{name}_photographs" if data else name
    command = f"python benchmarks/experiments.py --only {name} --seeds {seeds} --runs {place} --pictures {place}"
    return Picture((f"{command} --data {PHOTOGRAPHS} {data}".rstrip() if data else command,), f"{place}/{name}.png")


def deletion(name: str, run: str) -> Picture:
    """Return the picture of a trained net with its blocks deleted and swapped."""
    run = f"{name}/{name}/{run},seed=0"
    return Picture((*experiment(name).commands, f"resnet-eval '{run}' --delete-blocks"), f"{run}/eval/test/blocks.png")


def analysis(name: str, arguments: str) -> Picture:
    """Return the picture that resnet-info draws."""
    return Picture((f"resnet-info {arguments} --out {name}.png",), f"{name}.png")


PICTURES = {
    "digits.png": Picture(("resnet-train hydra.run.dir=digits resume=auto",), "digits/curves.png"),
    "overfit_tiny.png": experiment("overfit_tiny"),
    "memorize_noise.png": experiment("memorize_noise", 3),
    "rectifiers.png": experiment("rectifiers"),
    "initialisation.png": experiment("initialisation"),
    "degradation.png": experiment("degradation"),
    "edge_of_stability.png": experiment("edge_of_stability"),
    "without_normalisation.png": experiment("without_normalisation"),
    "wrong_labels.png": experiment("wrong_labels"),
    "stochastic_depth.png": experiment("stochastic_depth"),
    "shortcuts.png": experiment("shortcuts"),
    "gradients_plain56.png": analysis("gradients", "model=plain56 data=digits --gradients"),
    "shattered.png": analysis("shattered", "model=plain56 --shattered"),
    "signal.png": analysis("signal", "model=preact110 --signal --compare model.norm=batch model.norm=none"),
    "activations.png": analysis(
        "activations", "model=deep_cnn --activations --compare model.init=default model.init=he"
    ),
    "blocks_resnet56.png": deletion("degradation", "model.residual=true,model.depth=56"),
    "blocks_stochastic_depth_0.png": deletion("stochastic_depth", "model.stochastic_depth=0"),
    "blocks_stochastic_depth_0.5.png": deletion("stochastic_depth", "model.stochastic_depth=0.5"),
    "overfit_tiny_photographs.png": experiment("overfit_tiny", 3, "data.val_fraction=0"),
    "rectifiers_photographs.png": experiment("rectifiers", 1, "data.train_size=5000"),
    "initialisation_photographs.png": experiment("initialisation", 3, "data.train_size=5000"),
    "degradation_photographs.png": experiment(
        "degradation", 2, "data.train_size=5000 model.order=preactivation optimizer.lr=0.05 trainer.epochs=6"
    ),
}


def main() -> None:
    """Make the pictures that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *PICTURES, "notebook"])
    parser.add_argument("--photographs", type=Path, metavar="DIR")
    parser.add_argument("--images", type=Path, default=IMAGES, help="where the pictures go (default: docs/images)")
    parser.add_argument("--runs", type=Path, default=RUNS, help="where runs are kept")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    for name in options.names or [*PICTURES, "notebook"]:
        if name == "notebook":
            print(f"{NOTEBOOK.name}\n    every cell, in order", flush=True)
            if not options.list:
                run_notebook(NOTEBOOK)
            continue
        picture = PICTURES[name]
        print("\n    ".join([name, *picture.commands]), flush=True)
        if options.list:
            continue
        if picture.needs_photographs and options.photographs is None:
            print("    left out: give --photographs DIR")
            continue
        make(picture, options.images / name, options.runs, options.photographs)


def make(picture: Picture, path: Path, runs: Path, photographs: Path | None = None) -> None:
    """Run the commands of a picture and copy what they made.

    Args:
        picture: The picture.
        path: Where it goes.
        runs: Working folder of the commands.
        photographs: What DIR stands for.
    """
    runs.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "ignore"}
    for command in picture.commands:
        words = shlex.split(command if photographs is None else command.replace("=DIR", f"={photographs.resolve()}"))
        words = [str(REPOSITORY / word) if word.startswith("benchmarks/") else word for word in words]
        subprocess.run([*program(words[0]), *words[1:]], cwd=runs, env=environment, check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(runs / picture.made, path)


def program(name: str) -> list[str]:
    """Return what starts a command of this package, or Python itself, in the present interpreter."""
    if name == "python":
        return [sys.executable]
    module = f"resnet_cli.commands.{name.removeprefix('resnet-')}"
    return [sys.executable, "-c", f"import sys; from {module} import main; sys.argv[0] = '{name}'; main()"]


def run_notebook(path: Path) -> None:
    """Run every cell of a notebook in a fresh kernel, and store its outputs."""
    try:
        import nbformat
        from nbclient import NotebookClient
    except ImportError as error:
        sys.exit(f"the notebook needs {error.name}: pip install nbclient ipykernel")
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=600, record_timing=False, resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
