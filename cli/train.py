"""`mura-search train`: a model bundle from labelled radiographs."""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.terminal import AsJson, Layout, Part, Split, note, print_json, progress
from index.errors import MissingExtra, MuraSearchError

if TYPE_CHECKING:
    from retrieval.collection import Collection
    from training.recipe import Recipe
    from training.run import Trained

__all__ = ["train"]


def train(
    data: Annotated[list[Path], typer.Argument(metavar="DATA", help="MURA or FracAtlas folders, or CSV case tables.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the run is written; the bundle is FOLDER/model.")],
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="densenet169 (default), resnet50 or timm:NAME.")
    ] = None,
    dimension: Annotated[int | None, typer.Option(metavar="N", help="Numbers of the embedding: 128 or 256.")] = None,
    size: Annotated[int | None, typer.Option(min=64, metavar="PIXELS", help="Side of the network's input.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, metavar="N", help="Passes over the data.")] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weights to start from, instead of ImageNet's from the hub.")
    ] = None,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Start from random weights.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, metavar="N", help="Seed of everything random.")] = None,
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A run's recipe.json, to train by; options go before it.")
    ] = None,
    name: Annotated[str, typer.Option(metavar="NAME", help="The model's name; without it, the folder's.")] = "",
    part: Part = None,
    split: Split = None,
    layout: Layout = None,
    as_json: AsJson = False,
) -> None:
    """Train an encoder and a classifier: embeddings by triplets, then the classifier on them.

    Patients are held out to calibrate on. Of a collection with the splits train and valid only train is used, unless
    --split says otherwise. Interrupted, the same command goes on after the last finished epoch.
    """
    if weights and from_scratch:
        raise typer.BadParameter("--weights and --from-scratch exclude each other")
    try:
        from training.data import load_training_set
        from training.recipe import Recipe
        from training.run import train as run
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", "train") from error

    start = "" if from_scratch else str(weights) if weights else None
    options: dict[str, Any] = {
        "backbone": backbone,
        "dimension": dimension,
        "size": size,
        "epochs": epochs,
        "seed": seed,
        "weights": start,
    }
    chosen = read_recipe(recipe, Recipe()) if recipe else Recipe()
    chosen = replace(chosen, **{key: value for key, value in options.items() if value is not None})
    collections = [training_collection(place, layout, part, split) for place in data]
    with progress("reading") as show:
        training_set, unreadable = load_training_set(collections, chosen.preprocessing, show)
    for path, reason in unreadable:
        note(f"left out: {path}: {reason}")
    about = {
        "synthetic": any(collection.synthetic for collection in collections),
        "collections": [collection.root.name for collection in collections],
    }
    with progress("training") as show:
        try:
            trained = run(training_set, chosen, out, name=name, provenance=about, report=reporter(show))
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command goes on after the last finished epoch") from None
    if as_json:
        print_json(trained_as_json(trained))
        return
    print(f"Trained in {trained.seconds / 60:.1f} min; exported and torch differ by {trained.export_difference:.1e}.")
    print(f"Decision rules: {trained.rules.source}.")
    print(f"Use it:  mura-search index build DATA --model {trained.model}")


def reporter(show: Callable[[int, int], None]) -> Callable[[str, int, int, Mapping[str, float]], None]:
    """What a run calls as it proceeds: steps move the bar, epochs are told with their figures."""

    def report(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        if stage == "epoch":
            told = ", ".join(f"{key} {value:.3f}" for key, value in figures.items() if key != "epoch")
            note(f"epoch {done} of {total}: {told}")
        elif stage == "train":
            show(done, total)

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
    from retrieval.collection import read_collection

    collection = read_collection(data, layout, part, split)
    if split is None and {"train", "valid"} <= {case.split for case in collection.cases}:
        collection = collection.select(split="train")
        note(f"{data}: training on its split train; valid is left for evaluation")
    return collection


def read_recipe(file: Path, default: "Recipe") -> "Recipe":
    """The recipe in a run's recipe.json, or in a JSON object of some of its fields."""
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
        values = content.get("recipe", content)
        unknown = sorted(set(values) - {field.name for field in fields(default)})
        if unknown:
            raise MuraSearchError(f"{file} has fields that no recipe has: {', '.join(unknown)}")
        return replace(default, **values)
    except (ValueError, AttributeError, TypeError) as error:
        raise MuraSearchError(f"{file} is no recipe; give the recipe.json of a run ({error})") from error
