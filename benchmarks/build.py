"""A whole build, from files to decision rules, against what the encoder alone could do; time and memory.

    OPENBLAS_NUM_THREADS=1 python benchmarks/build.py [--share 0.1] [--large 300] [--distinct 100]

Two collections are drawn. One has MURA's number of finger radiographs (5,106 of 1,935 studies; --share takes a part of
it) as PNG of about 512 pixels. The other has --large JPEG files of 2,500 x 2,000 pixels (the full size is 10,000). At
most --distinct files of each are drawn; the others are links to them, so no disk is measured. Each build runs in a
process of its own. The encoder's bound is what it does of prepared pictures in batches of 16, in the same process,
before and after the build. Then the processor's time of each part of the work is given, by radiograph.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks._timing import machine, ratio, show
from retrieval.datasets.collection import read_collection
from retrieval.encoding.batches import PREVIEW_SIDE, small_jpeg, thumbnail
from retrieval.encoding.bundle import BUNDLED
from retrieval.encoding.encoder import Encoder
from retrieval.formats.csv_format import table
from retrieval.images.radiograph import decode_radiograph
from retrieval.indexing.build import build_index
from retrieval.synthetic.dataset import draw_study

RADIOGRAPHS, STUDIES = 5_106, 1_935  # MURA's fingers to train on
LARGE = (2_500, 2_000)  # height and width
BATCH, BATCHES = 16, 6
PROFILED = 24  # radiographs


@dataclass(frozen=True, slots=True)
class Drawn:
    """A collection to draw: its number of radiographs, how many files differ, and their (height, width) or None."""

    count: int
    distinct: int
    size: tuple[int, int] | None

    @property
    def name(self) -> str:
        size = "{:,} x {:,} pixels, JPEG".format(*self.size) if self.size else "about 512 pixels, PNG"
        return f"{self.count:,} radiographs of {size}"

    def write(self, folder: Path) -> None:
        """Draw files and case table into FOLDER: as many views a study as in MURA, seven studies of six patients."""
        folder.mkdir()
        ending = "jpg" if self.size else "png"
        rows: list[tuple[object, ...]] = []
        for number in range(self.count):
            study = number * STUDIES // RADIOGRAPHS
            file = folder / f"{number:05}.{ending}"
            if number < self.distinct:
                file.write_bytes(self._file(number, study % 5 < 2, ending))
            else:
                os.link(folder / f"{number % self.distinct:05}.{ending}", file)
            rows.append((file.name, int(study % 5 < 2), f"p{study * 6 // 7}", f"s{study}"))
        (folder / "cases.csv").write_text(table([("path", "label", "patient", "study"), *rows]), encoding="utf-8")

    def _file(self, number: int, abnormal: bool, ending: str) -> bytes:
        pixels = draw_study(0, number, abnormal=abnormal)[0].pixels
        if self.size:  # a detector's grain, which a JPEG has to encode
            H, W = self.size
            enlarged = cv2.resize(pixels, (W, H), interpolation=cv2.INTER_CUBIC)
            grain = np.random.default_rng(number).normal(0, 3, (H, W))
            pixels = np.clip(enlarged + grain, 0, 255).astype(np.uint8)
        return cv2.imencode(f".{ending}", pixels)[1].tobytes()


def built(folder: Path) -> dict[str, Any]:
    """Build an index of the collection in FOLDER; the figures of the build, and of the encoder alone around it."""
    collection = read_collection(folder)
    encoder = Encoder.open(BUNDLED)
    data = [Path(case.path).read_bytes() for case in collection.cases[:PROFILED]]
    pictures = [encoder.prepare(decode_radiograph(content).pixels) for content in data[:BATCH]]
    pictures = (pictures * BATCH)[:BATCH]
    before = encoder_rate(encoder, pictures)
    started = time.perf_counter()
    report = build_index(collection, folder.with_suffix(".index"))
    seconds = time.perf_counter() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    assert report.cases == len(collection.cases), report.quarantined
    after = encoder_rate(encoder, pictures)
    return {
        "seconds": seconds, "memory": memory / 2**20, "encoder": [before, after], "parts": profile(encoder, data),
    }  # fmt: skip


def encoder_rate(encoder: Encoder, pictures: list[NDArray[np.uint8]]) -> float:
    """Prepared pictures a second; the first batch is not counted."""
    encoder.encode_prepared(pictures)
    started = time.perf_counter()
    for _ in range(BATCHES):
        encoder.encode_prepared(pictures)
    return BATCHES * len(pictures) / (time.perf_counter() - started)


def profile(encoder: Encoder, data: list[bytes]) -> Mapping[str, float]:
    """Milliseconds of the processor that each part takes of a radiograph."""
    radiographs = [decode_radiograph(content).pixels for content in data]
    pictures = [encoder.prepare(pixels) for pixels in radiographs]

    def spent(action: Callable[[], object]) -> float:
        started = time.process_time()
        action()
        return 1000 * (time.process_time() - started) / len(data)

    return {
        "decoded and checked": spent(lambda: [decode_radiograph(content) for content in data]),
        "prepared (CLAHE, letterbox)": spent(lambda: [encoder.prepare(pixels) for pixels in radiographs]),
        "measured": spent(lambda: [encoder.measure(pixels) for pixels in radiographs]),
        "thumbnail and preview": spent(
            lambda: [(thumbnail(pixels), small_jpeg(pixels, PREVIEW_SIDE)) for pixels in radiographs]
        ),
        "encoded": spent(lambda: encoder.encode_prepared(pictures)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.1, help="share of MURA's radiographs; 0 leaves them out")
    parser.add_argument("--large", type=int, default=300, help="number of large radiographs; 0 leaves them out")
    parser.add_argument("--distinct", type=int, default=100)
    options = parser.parse_args()
    machine("onnxruntime", "opencv-python-headless", "numpy")
    collections = [
        Drawn(round(options.share * RADIOGRAPHS), options.distinct, None),
        Drawn(options.large, options.distinct, LARGE),
    ]
    for drawn in (drawn for drawn in collections if drawn.count):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "data"
            drawn.write(folder)
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                measured = pool.submit(built, folder).result()
        print(f"\n{drawn.name}")
        rate = drawn.count / measured["seconds"]
        show(f"{drawn.name}: build", [measured["seconds"]], "s")
        show(f"{drawn.name}: build, by second", [rate], "radiographs/s")
        show(f"{drawn.name}: the encoder alone, of prepared pictures", measured["encoder"], "radiographs/s")
        show(f"{drawn.name}: peak memory", [measured["memory"]], "MiB")
        for part, milliseconds in measured["parts"].items():
            show(f"{drawn.name}: {part}", [milliseconds], "ms of the processor a radiograph")
        ratio(f"{drawn.name}: build / encoder alone", [rate, rate], measured["encoder"])


if __name__ == "__main__":
    main()
