"""`mura-search demo`: draw, index, ask and evaluate, with no data and no network."""

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from cli.console import note, print_json, progress
from cli.options.common import AsJson, OpenPage, Port, Seed
from cli.serve import ServerOptions, run_server
from index.errors import MuraSearchError
from index.lock import require_locks

__all__ = ["demo"]


def demo(
    keep: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep the radiographs and the index in this new folder.")
    ] = None,
    patients: Annotated[int, typer.Option(min=20, metavar="N", help="How many patients to draw.")] = 80,
    seed: Seed = 1,
    serve: Annotated[bool, typer.Option("--serve", help="Then serve the page, to ask there.")] = False,
    port: Port = 8000,
    open_page: OpenPage = False,
    as_json: AsJson = False,
) -> None:
    """Draw synthetic radiographs, index them, ask about a study that is not indexed, and print the answer."""
    require_locks()
    if keep and keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise MuraSearchError(f"{keep} is not an empty folder; give --keep a new folder or an empty one")
    folder = keep or Path(tempfile.mkdtemp(prefix="mura-search-demo-"))
    try:
        asked = run_demo(folder, patients, seed, as_json)
        if keep or serve or open_page:
            project_demo(folder / "index")
        if serve or open_page:
            note(f"\nOn the page, drop a radiograph that is not indexed, such as {asked}")
            with making_regions(folder / "index"):
                run_server(folder / "index", ServerOptions(port=port, files=True, open_page=open_page))
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    if keep:
        index = quote(str(keep / "index"))
        note(f"\nKept in {keep}; ask again:  mura-search QUERY... --index {index}")
        note(f"To search by a region, too:   mura-search index regions --index {index}")
    else:
        note("\nThe radiographs and the index are removed; --keep FOLDER keeps them.")


def project_demo(index: Path) -> None:
    """Make the map of the demo's index, so that the page has an atlas."""
    from retrieval.indexing.projection import project_index

    project_index(index, method="pca")


class _Stopped(Exception):
    """The server has ended, and the regions are no longer needed."""


@contextmanager
def making_regions(index: Path) -> Iterator[None]:
    """Make the regions of the demo's index while the server runs, so that the page starts without waiting for them."""
    from retrieval.search_by.region import add_regions

    ended = threading.Event()

    def advance(_done: int, _total: int) -> None:
        if ended.is_set():
            raise _Stopped

    def work() -> None:
        try:
            add_regions(index, progress=advance)
            note("A region can be searched now: the tool Region of the page, in the next answer.")
        except _Stopped:
            pass
        except MuraSearchError as error:
            note(f"The regions could not be made: {error}")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def run_demo(folder: Path, patients: int, seed: int, as_json: bool) -> Path:
    """Draw, index, ask and evaluate in a folder; gives a radiograph of the study that was asked about."""
    from cli.render_answer import print_answer
    from retrieval.datasets.collection import read_collection
    from retrieval.evaluation.evaluate import evaluate
    from retrieval.indexing.build import build_index
    from retrieval.searcher import Searcher
    from retrieval.synthetic.dataset import write_collection

    data, index = folder / "radiographs", folder / "index"
    with progress("drawing") as show:
        write_collection(data, patients=patients, seed=seed, progress=show)
    with progress("indexing") as show:
        report = build_index(read_collection(data, split="train"), index, progress=show)
    note(
        f"Drew {patients} synthetic patients and indexed {report.studies} of their studies, in {report.seconds:.0f} s."
    )

    valid = read_collection(data, split="valid")
    asked = next(case for case in valid.cases if case.label_name == "abnormal")
    note(f"Asking about {asked.study}, which is not indexed and was drawn {asked.label_name}.\n")
    with Searcher.open(index) as searcher:
        answer = searcher.search([case.path for case in valid.cases if case.study == asked.study])
        if as_json:
            print_json(answer.to_dict())
        else:
            print_answer(answer)
        evaluation = evaluate(searcher, valid)
    right = {
        predictor: (evaluation.study[predictor]["accuracy"].value or 0.0) * evaluation.studies
        for predictor in ("classifier", "knn")
    }
    note(
        f"\nOf all {evaluation.studies} studies that are not indexed, the classifier is right on "
        f"{right['classifier']:.0f} and the vote on {right['knn']:.0f}."
    )
    return Path(asked.path)
