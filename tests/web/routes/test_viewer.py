"""What the viewer asks the server for: grey values, heatmaps, and the radiographs of an indexed study."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("fastapi", reason="the extra web is not installed")

import httpx

from retrieval.datasets.collection import Collection
from retrieval.indexing.build import BuildOptions, build_index
from retrieval.searcher import Searcher

Serve = Callable[..., str]
Png = Callable[..., bytes]


def study_of(client: httpx.Client, *files: tuple[str, bytes]) -> str:
    reply = client.post("/api/search", files=[("files", file) for file in files], data={"heatmap": "true"})
    assert reply.status_code == 200, reply.text
    return str(reply.json()["remembered"]["study"])


def values_of(client: httpx.Client, study: str, number: int = 1) -> tuple[Any, dict[str, Any]]:
    reply = client.get(f"{study}/views/{number}/values")
    about = json.loads(reply.headers["grey-values"])
    flat = np.frombuffer(reply.content, "<u2" if about["bytes"] == 2 else np.uint8)
    return flat.reshape(about["height"], about["width"]), about


def test_values_of_a_12_bit_dicom_file_have_all_their_bits_and_name_nobody(
    client: httpx.Client, dicom_bytes: Callable[..., bytes]
) -> None:
    picture = np.arange(1024, dtype=np.uint16).reshape(32, 32) * 4
    header = {"WindowCenter": 2000, "WindowWidth": 4000, "PixelSpacing": [0.2, 0.2], "PatientID": "MUELLER"}
    data = dicom_bytes(picture, BitsStored=12, HighBit=11, ImageLaterality="R", ViewPosition="PA", **header)
    values, about = values_of(client, study_of(client, ("q.dcm", data)))
    assert (values * about["slope"] + about["intercept"] == picture).all()
    assert (about["bits"], about["laterality"], about["view"]) == (12, "right", "pa")
    assert about["spacing"] == {"millimetres": 0.2, "where": ""}
    assert about["windows"][0] == {"name": "file's window 1", "center": 2000.0, "width": 4000.0}
    assert "MUELLER" not in json.dumps(about)


def test_values_of_8_bits_are_the_pixels(client: httpx.Client, png: Png) -> None:
    values, about = values_of(client, study_of(client, ("q.png", png(200))))
    assert (values == cv2.imdecode(np.frombuffer(png(200), np.uint8), cv2.IMREAD_GRAYSCALE)).all()
    assert (about["bytes"], about["bits"], about["spacing"]) == (1, 8, None)


def test_no_heatmap_below_the_threshold_unless_asked(client: httpx.Client, png: Png) -> None:
    study = study_of(client, ("bright.png", png(230)), ("dark.png", png(30)))

    def cover(number: int, **question: str) -> int:
        data = client.get(f"{study}/views/{number}/heatmap", params=question).content
        return int(np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))[..., 3].max())

    assert cover(1) > 200
    assert cover(2) == 0
    assert 0 <= cover(2, below="true") < 30  # as strong as its probability


def test_the_comparison_has_all_radiographs_of_the_study_its_preview_and_its_report(
    serve: Serve, png: Png, collection: Collection, model: Path, tmp_path: Path
) -> None:
    from dataclasses import replace

    told = replace(collection, cases=tuple(replace(case, report="No fracture seen.") for case in collection.cases))
    build_index(told, tmp_path / "own", options=BuildOptions(preview=24), model=model)
    with Searcher.open(tmp_path / "own") as searcher:
        case = next(case for case in searcher.index.cases() if case.study == "s4")
        preview = searcher.index.preview(case.case)
        assert preview is not None
        assert np.asarray(cv2.imdecode(np.frombuffer(preview, np.uint8), cv2.IMREAD_UNCHANGED)).shape == (24, 24)
    with httpx.Client(base_url=serve(tmp_path / "own"), timeout=30) as client:
        study = study_of(client, ("q.png", png(230))).removeprefix("/api")
        reply = client.get(f"{study}/compare", params={"case": case.case}, headers={"x-fragment": "1"})
        assert reply.status_code == 200, reply.text
        assert reply.text.count("data-show=") == 2
        assert "24 pixels on its long side" in reply.text
        assert "No fracture seen." in reply.text
        shown = client.get(f"/api/cases/{case.case.replace('/', '%2F')}/image")
        assert shown.content == preview
