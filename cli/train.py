"""`mura-search train`: a model bundle from labelled radiographs."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from cli.console import note, print_json, progress, stages
from cli.options.common import AsJson
from cli.options.data import Cache, LabelsAre, Layout, Part, Split, meanings
from index.errors import MissingExtra, MuraSearchError

if TYPE_CHECKING:
    from retrieval.datasets.collection import Collection
    from training.loop.cost_estimate import Plan
    from training.loop.run import RunOptions, Trained
    from training.recipe import Recipe

__all__ = ["train"]

HEADS: dict[str, dict[str, Any]] = {
    "two-stage": {"classification": 0.0, "second_stage": True},
    "joint": {"classification": 1.0, "second_stage": False},
    "both": {"classification": 1.0, "second_stage": True},
}


@dataclass(frozen=True)
class RecipeOptions:
    """What is trained, and how. None leaves it to the recipe."""

    loss: Annotated[
        str | None,
        Option(metavar="NAME", help="triplet (default), batch-hard, focal, neighbourhood, selective or semi-hard."),
    ] = None
    head: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="When the classifier is trained. joint: with the embedding; two-stage: after it; both (default): "
            "with it, and again after it.",
        ),
    ] = None
    backbone: Annotated[str | None, Option(metavar="NAME", help="densenet169 (default), resnet50 or timm:NAME.")] = None
    dimension: Annotated[int | None, Option(metavar="N", help="The dimension of the embedding: 128 or 256.")] = None
    size: Annotated[int | None, Option(min=64, metavar="PIXELS", help="Width and height of the network's input.")] = (
        None
    )
    clahe: Annotated[
        bool | None, Option("--clahe/--no-clahe", help="Equalise the contrast locally (default), or not.")
    ] = None
    epochs: Annotated[int | None, Option(min=1, metavar="N", help="The number of passes over the data.")] = None
    patience: Annotated[
        int | None, Option(min=0, metavar="N", help="Stop after this many epochs without a better held-out kappa.")
    ] = None
    weights: Annotated[
        Path | None, Option(metavar="FILE", help="Start from these weights. By default they are ImageNet's.")
    ] = None
    from_scratch: Annotated[bool, Option("--from-scratch", help="Start from random weights.")] = False
    test_time: Annotated[
        str | None, Option(metavar="NAME", help="mirror: encode queries mirrored as well, at twice the cost.")
    ] = None
    seed: Annotated[int | None, Option(min=0, metavar="N", help="The random seed.")] = None
    recipe: Annotated[
        Path | None, Option(metavar="FILE", help="Train by this recipe.json of a run. Other options override it.")
    ] = None

    def changes(self) -> dict[str, Any]:
        """The fields of the recipe that the options set. Raises BadParameter."""
        if self.weights and self.from_scratch:
            raise typer.BadParameter("--weights and --from-scratch exclude each other")
        if self.head is not None and self.head not in HEADS:
            raise typer.BadParameter(f"--head is one of: {', '.join(HEADS)}")
        fields = ("loss", "backbone", "dimension", "size", "clahe", "epochs", "patience", "seed", "test_time")
        values: dict[str, Any] = {name: getattr(self, name) for name in fields}
        values["weights"] = "" if self.from_scratch else str(self.weights) if self.weights else None
        return {name: value for name, value in values.items() if value is not None} | HEADS.get(self.head or "", {})


def train(
    data: Annotated[list[Path], typer.Argument(metavar="DATA", help="MURA or FracAtlas folders, or CSV case tables.")],
    out: Annotated[
        Path, Option(metavar="FOLDER", help="Write the run to this folder, and the bundle to FOLDER/model.")
    ],
    options: RecipeOptions,
    resume: Annotated[bool, Option("--resume", help="Continue the interrupted run in --out.")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Show the plan, with time and memory, and stop.")] = False,
    name: Annotated[str, Option(metavar="NAME", help="The model's name. By default it is the folder's name.")] = "",
    cache: Cache = None,
    part: Part = None,
    split: Split = None,
    layout: Layout = None,
    labels_are: LabelsAre = None,
    as_json: AsJson = False,
) -> None:
    """Train an encoder and a classifier: first the embedding by triplets, then the classifier on it.

    Some patients are held out for validation and calibration. If a collection has the splits train and valid, only
    train is used; to use others, set --split. If the run is interrupted, --resume continues it. To train on several
    GPUs:

    \b
      torchrun --nproc-per-node GPUS --no-python mura-search train ...
    """  # noqa: D301  # \b is for Click
    changes = options.changes()
    try:
        from training.data.dataset import listed_cases
        from training.distributed import rank_and_size
        from training.loop.run import Division, RunOptions, plan_run, recorded_recipe
        from training.recipe import Recipe
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", "train") from error

    recipe = read_recipe(options.recipe) if options.recipe else recorded_recipe(out) if resume else Recipe()
    recipe = replace(recipe, **changes)
    collections = [training_collection(path, layout, part, split, labels_are) for path in data]
    cases = listed_cases(collections)
    say(Division.of_cases(cases, recipe).text(cases))
    plan = None
    # Reading takes minutes, so the plan comes first. A resumed run has its data in the cache already.
    if dry_run or (not resume and rank_and_size()[1] == 1):
        plan, about_weights = plan_run(cases, recipe, offline=dry_run)
        if about_weights:
            note(about_weights)
        if dry_run:
            if as_json:
                print_json({"schema": "mura-search/plan/1", "recipe": recipe.to_dict(), **asdict(plan)})
            else:
                print(described(plan))
            return
        note(foretold(plan.seconds, plan.memory_bytes, plan.step_seconds))
    provenance = {
        "synthetic": any(collection.synthetic for collection in collections),
        "collections": [collection.root.name for collection in collections],
    }
    run = RunOptions(name=name, provenance=provenance, resume=resume, trial=plan)
    trained = run_training(collections, recipe, out, run, cache)
    if trained:  # None in torchrun's other processes
        print_trained(trained, as_json)


def run_training(
    collections: "Sequence[Collection]",
    recipe: "Recipe",
    out: Path,
    options: "RunOptions",
    cache: Path | None,
) -> "Trained | None":
    """Read the collections and train, with progress on stderr."""
    from training.data.dataset import load_training_set
    from training.loop.run import train as run

    with progress("reading") as show:
        training_set, unreadable = load_training_set(
            collections, recipe.preprocessing, show, cache=cache, processing=recipe.processing
        )
    for path, reason in unreadable:
        say(f"left out: {path}: {reason}")
    with stages("training") as show:
        try:
            return run(training_set, recipe, out, options, reporter(show, planned=options.trial is not None))
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command with --resume continues the run") from None


def print_trained(trained: "Trained", as_json: bool) -> None:
    if as_json:
        print_json(trained_as_json(trained))
        return
    print(f"Trained in {trained.seconds / 60:.1f} min; exported and torch differ by {trained.export_difference:.1e}.")
    print(f"Decision rules: {trained.rules.source}.")
    print(f"Use it:  mura-search index build DATA --model {quote(str(trained.model))}")


def say(text: str) -> None:
    """Print a note, but only in the first of the processes that torchrun started."""
    if os.environ.get("RANK", "0") == "0":
        note(text)


def described(plan: "Plan") -> str:
    """The plan in words."""
    stages = f"{plan.soup} runs of " if plan.soup > 1 else ""
    stages += f"{plan.crop_epochs} epochs of {plan.crop_steps:,} steps on crops, then " if plan.crop_epochs else ""
    return "\n".join(
        (
            f"{plan.learning:,} radiographs: {stages}{plan.epochs} epochs of {plan.steps:,} steps, at most; "
            f"a step takes {plan.step_seconds:.2f} s",
            f"{plan.parameters / 1e6:.1f} million parameters, {plan.trained_parameters / 1e6:.1f} million trained",
            f"{plan.processes} x {plan.device}, {plan.precision}: about {duration(plan.seconds)}, "
            f"{plan.memory_bytes / 2**30:.1f} GiB",
        )
    )


def duration(seconds: float) -> str:
    """An estimated time, in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


STAGES = {
    "train": "training",
    "look": "finding what separates the classes",
    "encode": "encoding",
    "harmonise": "learning what other processing does",
}


def foretold(seconds: float, memory_bytes: float, step_seconds: float) -> str:
    """The time and memory that a run will take, in one line."""
    return f"about {duration(seconds)} at most, {memory_bytes / 2**30:.1f} GiB ({step_seconds:.2f} s a step)"


def reporter(
    show: Callable[[str, int, int], None], planned: bool = False
) -> Callable[[str, int, int, Mapping[str, float]], None]:
    """The function that a run reports to: it draws a bar for each stage, and prints each epoch's figures.

    `planned` says that the plan has been printed already.
    """

    def report(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        if stage == "plan":
            if not planned:
                note(foretold(**figures))
        elif stage == "epoch":
            values = ", ".join(f"{key} {value:.3f}" for key, value in figures.items() if key != "epoch")
            note(f"epoch {done} of {total}: {values}")
        else:
            show(STAGES.get(stage, stage), done, total)

    return report


def trained_as_json(trained: "Trained") -> dict[str, object]:
    from retrieval.formats.json_format import plain

    return {
        "schema": "mura-search/training/1",
        "model": str(trained.model),
        "epochs": plain([dict(epoch) for epoch in trained.epochs]),  # a figure that is undefined is null
        "export_difference": trained.export_difference,
        "rules": trained.rules.to_dict(),
        "seconds": trained.seconds,
    }


def training_collection(
    data: Path, layout: str | None, part: str | None, split: str | None, labels_are: str | None
) -> "Collection":
    """DATA without the split that is there to be evaluated on."""
    from retrieval.datasets.collection import read_collection

    collection = read_collection(data, layout, part, split, labels_are=meanings(labels_are))
    for text in collection.notes:
        say(f"{data}: {text}")
    if split is None and {"train", "valid"} <= {case.split for case in collection.cases}:
        collection = collection.select(split="train")
        say(f"{data}: training on its split train; valid is left for evaluation")
    return collection


def read_recipe(file: Path) -> "Recipe":
    """The recipe in a run's recipe.json, or in a JSON object of some of its fields."""
    from training.recipe import Recipe, without_removed

    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
        values = dict(content.get("recipe", content))
    except (ValueError, AttributeError, TypeError) as error:
        raise MuraSearchError(f"{file} is not a recipe; name the recipe.json of a run ({error})") from error
    return Recipe.from_dict(without_removed(values), str(file))
