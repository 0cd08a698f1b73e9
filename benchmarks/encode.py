"""Radiographs from file to embedding (decoding, CLAHE, encoding), images a second, against torch in eager mode.

    python benchmarks/encode.py [FOLDER] [--images 128] [--runs 5]

FOLDER holds radiographs; without it synthetic ones are drawn. Both sides read the same files, use the same cores and
the same network, and their embeddings are compared.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._network import Plain, make_both
from benchmarks._timing import alternate, machine, ratio, show
from index.case import Case
from retrieval.encoding.batches import encoded_batches
from retrieval.encoding.encoder import Encoder
from retrieval.images.preprocessing import Preprocessing, preprocess
from retrieval.images.radiograph import IMAGE_SUFFIXES
from retrieval.synthetic.dataset import draw_study

BATCH = 16


def with_torch(files: Sequence[Path], network: Plain, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """As most scripts do it: file after file through OpenCV, batches through the network in eager mode.

    The preparation is ours, since rounding in another way back from LAB would show in the embeddings.
    """
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    batches = []
    for start in range(0, len(files), BATCH):
        pictures = []
        for file in files[start : start + BATCH]:
            image = cv2.imread(str(file), cv2.IMREAD_COLOR)
            assert image is not None
            picture = preprocess(np.asarray(image, np.uint8), preprocessing)
            pictures.append(torch.from_numpy(picture).permute(2, 0, 1))
        with torch.inference_mode():
            embeddings, _ = network((torch.stack(pictures).float() / 255 - mean) / std)
        batches.append(embeddings.numpy())
    return np.concatenate(batches)


def ours(files: Sequence[Path], encoder: Encoder) -> NDArray[np.float32]:
    cases = [Case(file.name, file.name, file.name, 0, path=str(file)) for file in files]
    return np.concatenate([batch.embeddings for batch in encoded_batches(cases, encoder)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    machine("onnxruntime", "torch", "opencv-python-headless")
    preprocessing = Preprocessing(size=448)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.folder:
            files = sorted(f for f in options.folder.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)[: options.images]
        else:
            files = []
            for study in range(options.images):
                files.append(folder / f"{study:04}.png")
                cv2.imwrite(str(files[-1]), draw_study(0, study, abnormal=study % 2 == 1)[0].pixels)
        bundle, network = make_both(folder, preprocessing)
        encoder = Encoder(bundle)
        ours_found, torch_found = ours(files, encoder), with_torch(files, network, preprocessing)
        cosine = (ours_found * torch_found).sum(1)
        print(f"{len(files)} radiographs; cosine of both: median {np.median(cosine):.6f}, lowest {cosine.min():.6f}")
        assert np.median(cosine) > 0.9999, "the two sides do not encode alike"

        def rate(action: str) -> float:
            started = time.perf_counter()
            ours(files, encoder) if action == "ours" else with_torch(files, network, preprocessing)
            return len(files) / (time.perf_counter() - started)

        samples, reference = alternate(options.runs, lambda: rate("ours"), lambda: rate("torch"))
    show("mura-search", samples, "images/s")
    show("torch eager", reference, "images/s")
    ratio("mura-search / torch eager", samples, reference)


if __name__ == "__main__":
    main()
