"""The pictures in README, drawn anew: twelve synthetic radiographs, and an answer in the terminal.

python docs/pictures.py [DATA INDEX]
"""

import io
import sys
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.terminal_theme import MONOKAI

from cli.render_answer import print_answer
from index.case import ABNORMAL
from retrieval.datasets.collection import read_collection
from retrieval.searcher import Searcher
from retrieval.synthetic.dataset import draw_study

HERE = Path(__file__).parent
TILE = 300
# Rich's own frame fetches its font from the network; this one uses what the reader has.
FRAME = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img" aria-label="An answer">
<style>.{unique_id}-matrix {{ font-family: monospace; font-size: {char_height}px; line-height: {line_height}px;
font-variant-east-asian: full-width; }} {styles}</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}</defs>
<rect width="{width}" height="{height}" rx="8" fill="#0c0c0c"/>
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g></g></svg>
"""


def draw_phantoms() -> None:
    """Four normal and eight abnormal ones, each with its view and finding under it."""
    tiles, study = [], 0
    wanted = {"": 4, "fracture": 2, "dislocation": 2, "joint-space narrowing": 1, "lytic lesion": 1, "metal": 2}
    while wanted:
        view = study % 3
        for abnormal in (False, True):
            phantoms = draw_study(7, study, abnormal)
            phantom = phantoms[view % len(phantoms)]
            if phantom.lesion in wanted:
                tiles.append(
                    (phantom.lesion, captioned(phantom.pixels, f"{phantom.view}, {phantom.lesion or 'normal'}"))
                )
                wanted[phantom.lesion] -= 1
                if not wanted[phantom.lesion]:
                    del wanted[phantom.lesion]
        study += 1
    ordered = [tile for _, tile in sorted(tiles, key=lambda pair: pair[0])]
    rows = [np.hstack(ordered[start : start + 6]) for start in (0, 6)]
    cv2.imwrite(str(HERE / "phantoms.jpg"), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 85])


def captioned(pixels: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    tile = np.full((TILE + 24, TILE), 24, np.uint8)
    scale = (TILE - 8) / max(pixels.shape)
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    top, left = (TILE - small.shape[0]) // 2, (TILE - small.shape[1]) // 2
    tile[top : top + small.shape[0], left : left + small.shape[1]] = small
    cv2.putText(tile, text, (8, TILE + 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, 220, 1, cv2.LINE_AA)
    return tile


def asked_files(data: Path) -> list[Path]:
    """The radiographs of the first abnormal study of the split valid that has several views."""
    cases = read_collection(data, split="valid").cases
    views = {case.study: [c.path for c in cases if c.study == case.study] for case in cases if case.label == ABNORMAL}
    return next([Path(file) for file in files] for files in views.values() if len(files) > 1)


def answer_of(files: Sequence[Path], index: Path, console: Console) -> None:
    """Print the answer about a study, which names no folder of this machine."""
    with Searcher.open(index) as searcher:
        answer = searcher.search(files)
    paths = [Path(*Path(case.case).parts[-3:]) for case in answer.cases]
    cases = zip(answer.cases, paths, strict=True)
    answer = replace(answer, cases=tuple(replace(case, path=str(path)) for case, path in cases))
    with TemporaryDirectory() as folder, chdir(folder):  # where these files are, so that none is called missing
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        print_answer(answer, console)


def recorded() -> Console:
    """A terminal whose content can be exported."""
    return Console(width=100, record=True, highlight=False, markup=False, emoji=False, file=io.StringIO())


def draw_answer(data: Path, index: Path) -> None:
    """The answer about a study, as a picture."""
    console = recorded()
    answer_of(asked_files(data), index, console)
    text = console.export_svg(title="", theme=MONOKAI, code_format=FRAME)
    (HERE / "answer.svg").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    draw_phantoms()
    if len(sys.argv) == 3:
        draw_answer(Path(sys.argv[1]), Path(sys.argv[2]))
