"""`mura-search train`: a model bundle from labelled radiographs."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import AsJson, Cache, Layout, Part, Split, note, print_json, progress, stages
from index.errors import MissingExtra, MuraSearchError

if TYPE_CHECKING:
    from retrieval.datasets.collection import Collection
    from training.loop.cost_estimate import Plan
    from training.loop.run import Trained
    from training.recipe import Recipe

__all__ = ["train"]

HEADS = {
    "two-stage": {"classification": 0.0, "second_stage": True},
    "joint": {"classification": 1.0, "second_stage": False},
    "both": {"classification": 1.0, "second_stage": True},
}


def train(
    data: Annotated[list[Path], typer.Argument(metavar="DATA", help="MURA or FracAtlas folders, or CSV case tables.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the run is written; the bundle is FOLDER/model.")],
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="triplet (default), batch-hard, focal, neighbourhood, selective or semi-hard."
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="joint: the classifier with the embedding; two-stage: after it; both (default): joint, then anew.",
        ),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="densenet169 (default), resnet50 or timm:NAME.")
    ] = None,
    dimension: Annotated[int | None, typer.Option(metavar="N", help="Numbers of the embedding: 128 or 256.")] = None,
    size: Annotated[int | None, typer.Option(min=64, metavar="PIXELS", help="Side of the network's input.")] = None,
    clahe: Annotated[
        bool | None, typer.Option("--clahe/--no-clahe", help="Equalise the contrast locally (default), or not.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, metavar="N", help="Passes over the data.")] = None,
    patience: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Epochs without a better held-out kappa before it stops.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weights to start from, instead of ImageNet's from the hub.")
    ] = None,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Start from random weights.")] = False,
    test_time: Annotated[
        str | None, typer.Option(metavar="NAME", help="mirror: queries are also encoded mirrored, at twice the cost.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, metavar="N", help="Seed of everything random.")] = None,
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A run's recipe.json, to train by; options go before it.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run in --out.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, with time and memory, and stop.")] = False,
    name: Annotated[str, typer.Option(metavar="NAME", help="The model's name; without it, the folder's.")] = "",
    cache: Cache = None,
    part: Part = None,
    split: Split = None,
    layout: Layout = None,
    as_json: AsJson = False,
) -> None:
    """Train an encoder and a classifier: embeddings by triplets, then the classifier on them.

    Patients are held out to calibrate on. Of a collection with the splits train and valid only train is used, unless
    --split says otherwise. Interrupted, it goes on with --resume. On several GPUs:
    torchrun --nproc-per-node GPUS --no-python mura-search train ...
    """
    if weights and from_scratch:
        raise typer.BadParameter("--weights and --from-scratch exclude each other")
    if head is not None and head not in HEADS:
        raise typer.BadParameter(f"--head is one of: {', '.join(HEADS)}")
    try:
        from training.data.dataset import listed_cases, load_training_set
        from training.distributed import rank_and_size
        from training.loop.run import RunOptions, plan_run, recorded_recipe
        from training.loop.run import train as run
        from training.recipe import Recipe
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", "train") from error

    start = "" if from_scratch else str(weights) if weights else None
    options: dict[str, Any] = {
        "loss": loss,
        "backbone": backbone,
        "dimension": dimension,
        "size": size,
        "clahe": clahe,
        "epochs": epochs,
        "patience": patience,
        "seed": seed,
        "weights": start,
        "test_time": test_time,
        **(HEADS[head] if head else {}),
    }
    chosen = read_recipe(recipe) if recipe else recorded_recipe(out) if resume else Recipe()
    chosen = replace(chosen, **{key: value for key, value in options.items() if value is not None})
    collections = [training_collection(place, layout, part, split) for place in data]
    # Reading may take minutes, so what is to come is told before it; what is gone on with has been read already.
    first = not resume and rank_and_size()[1] == 1
    plan = plan_run(listed_cases(collections), chosen) if dry_run or first else None
    if plan and dry_run:
        if as_json:
            print_json({"schema": "mura-search/plan/1", "recipe": chosen.to_dict(), **asdict(plan)})
        else:
            print(described(plan))
        return
    if plan:
        note(foretold(plan.seconds, plan.memory_bytes, plan.step_seconds))
    with progress("reading") as show:
        training_set, unreadable = load_training_set(collections, chosen.preprocessing, show, cache=cache)
    for path, reason in unreadable:
        say(f"left out: {path}: {reason}")
    about = {
        "synthetic": any(collection.synthetic for collection in collections),
        "collections": [collection.root.name for collection in collections],
    }
    with stages("training") as show:
        try:
            trained = run(
                training_set,
                chosen,
                out,
                RunOptions(name=name, provenance=about, resume=resume, trial=plan),
                reporter(show, told=plan is not None),
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command with --resume goes on from here") from None
    if trained is None:  # torchrun's other processes
        return
    if as_json:
        print_json(trained_as_json(trained))
        return
    print(f"Trained in {trained.seconds / 60:.1f} min; exported and torch differ by {trained.export_difference:.1e}.")
    print(f"Decision rules: {trained.rules.source}.")
    print(f"Use it:  mura-search index build DATA --model {trained.model}")


def say(text: str) -> None:
    """A note, once for all processes that torchrun started."""
    if os.environ.get("RANK", "0") == "0":
        note(text)


def described(plan: "Plan") -> str:
    """The plan in words."""
    stages = f"{plan.soup} runs of " if plan.soup > 1 else ""
    stages += f"{plan.crop_epochs} epochs of {plan.crop_steps:,} steps on crops, then " if plan.crop_epochs else ""
    return "\n".join(
        (
            f"{plan.learning:,} radiographs to learn from, {plan.holdout:,} of other patients to judge and calibrate",
            f"{stages}{plan.epochs} epochs of {plan.steps:,} steps, at most; a step takes {plan.step_seconds:.2f} s",
            f"{plan.parameters / 1e6:.1f} million parameters, {plan.trained_parameters / 1e6:.1f} million trained",
            f"{plan.processes} x {plan.device}, {plan.precision}: about {duration(plan.seconds)}, "
            f"{plan.memory_bytes / 2**30:.1f} GiB",
        )
    )


def duration(seconds: float) -> str:
    """A foretold time, no more exact than it is."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


STAGES = {
    "train": "training",
    "look": "seeing what it tells apart",
    "encode": "encoding",
}


def foretold(seconds: float, memory_bytes: float, step_seconds: float) -> str:
    """What a run will take, in one line."""
    return f"about {duration(seconds)} at most, {memory_bytes / 2**30:.1f} GiB ({step_seconds:.2f} s a step)"


def reporter(
    show: Callable[[str, int, int], None], told: bool = False
) -> Callable[[str, int, int, Mapping[str, float]], None]:
    """What a run calls as it proceeds: a bar for each stage; epochs are told with their figures.

    `told` says that the plan has been told before.
    """

    def report(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        if stage == "plan":
            if not told:
                note(foretold(**figures))
        elif stage == "epoch":
            values = ", ".join(f"{key} {value:.3f}" for key, value in figures.items() if key != "epoch")
            note(f"epoch {done} of {total}: {values}")
        else:
            show(STAGES.get(stage, stage), done, total)

    return report


def trained_as_json(trained: "Trained") -> dict[str, object]:
    from retrieval.answer import plain

    return {
        "schema": "mura-search/training/1",
        "model": str(trained.model),
        "epochs": plain([dict(epoch) for epoch in trained.epochs]),  # a figure that is undefined is null
        "export_difference": trained.export_difference,
        "rules": trained.rules.to_dict(),
        "seconds": trained.seconds,
    }


def training_collection(data: Path, layout: str | None, part: str | None, split: str | None) -> "Collection":
    """DATA without the split that is there to be evaluated on."""
    from retrieval.datasets.collection import read_collection

    collection = read_collection(data, layout, part, split)
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
        raise MuraSearchError(f"{file} is no recipe; give the recipe.json of a run ({error})") from error
    return Recipe.of(without_removed(values), str(file))
