"""The query as a plain script would do it: torch, torchvision, pandas, scikit-learn and FAISS.

    python benchmarks/_plain_query.py FOLDER QUERY

FOLDER holds network.pt, cases.csv, embeddings.npy and vectors.faiss. It prints the same figures as `mura-search QUERY
--json`: the classifier's probability, the vote, and the nearest studies.
"""

import json
import sys
import warnings
from pathlib import Path

import cv2
import faiss
import numpy as np
import pandas as pd
import torch
from sklearn.neighbors import KNeighborsClassifier
from torchvision.transforms.v2.functional import normalize, to_dtype, to_image

warnings.filterwarnings("ignore", category=DeprecationWarning)


def main(folder: Path, query: Path) -> None:
    network = torch.jit.load(str(folder / "network.pt"))  # type: ignore[no-untyped-call]
    cases = pd.read_csv(folder / "cases.csv")
    vectors = faiss.read_index(str(folder / "vectors.faiss"))
    voters = KNeighborsClassifier(n_neighbors=15, algorithm="brute", metric="cosine")
    voters.fit(np.load(folder / "embeddings.npy"), cases["label"])

    image = cv2.imread(str(query), cv2.IMREAD_COLOR)
    assert image is not None
    lightness, a, b = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2LAB))
    lightness = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(lightness)
    image = cv2.cvtColor(cv2.merge((lightness, a, b)), cv2.COLOR_LAB2RGB)
    height, width = image.shape[:2]
    scale = 448 / max(height, width)
    height, width = round(height * scale), round(width * scale)
    picture = np.zeros((448, 448, 3), np.uint8)
    top, left = (448 - height) // 2, (448 - width) // 2
    picture[top : top + height, left : left + width] = cv2.resize(
        image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    tensor = to_dtype(to_image(picture), torch.float32, scale=True)
    with torch.inference_mode():
        embedding, logit = network(normalize(tensor, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])[None])
    vote = voters.predict_proba(embedding.numpy())[0, 1]
    similarity, rows = vectors.search(embedding.numpy(), 50)
    nearest = cases.iloc[rows[0]].assign(similarity=similarity[0]).drop_duplicates("study").head(5)
    answer = {
        "classifier": float(logit.sigmoid()),
        "knn": float(vote),
        "cases": nearest[["study", "label", "similarity"]].to_dict("records"),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
