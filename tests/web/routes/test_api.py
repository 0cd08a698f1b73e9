"""The HTTP API on a real server: the same answers as the Python API gives, and what belongs to them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from retrieval.datasets.collection import Collection
from retrieval.indexing.build import build_index
from retrieval.searcher import Searcher

if TYPE_CHECKING:
    import httpx

Png = Callable[..., bytes]
Serve = Callable[..., str]


def files(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (f"view{number}.png", data)) for number, data in enumerate(contents, start=1)]


def without_places(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer less the times, and what names files and folders."""
    kept = {key: value for key, value in answer.items() if key not in ("seconds", "query", "index")}
    kept["cases"] = [{**case, "path": ""} for case in answer["cases"]]
    kept["views"] = [{**view, "file": "", "heatmap": None} for view in answer["views"]]
    return kept


@pytest.mark.parametrize("brightness", [(200,), (30,), (240, 225), (128, 20)])
def test_it_answers_as_the_python_api_does(
    client: "httpx.Client", png: Png, place: Path, tmp_path: Path, brightness: tuple[int, ...]
) -> None:
    views = [png(value) for value in brightness]
    paths = [tmp_path / f"{number}.png" for number in range(len(views))]
    for path, data in zip(paths, views, strict=True):
        path.write_bytes(data)
    with Searcher.open(place) as searcher:
        expected = searcher.search(paths, k=3).to_dict()
    reply = client.post("/api/search", files=files(*views), data={"k": "3"})
    assert reply.status_code == 200
    assert without_places(reply.json()) == without_places(expected)
    assert reply.json()["query"]["files"] == [f"view{number}.png" for number in range(1, len(views) + 1)]


def test_no_path_of_the_servers_disk_is_shown(serve: Serve, png: Png, tmp_path: Path) -> None:
    httpx = pytest.importorskip("httpx")
    client = httpx.Client(base_url=serve(), timeout=20)
    texts = [
        client.post("/api/search", files=files(png(200)), data={"heatmap": "true"}).text,
        client.post("/api/search", files=files(b"no image")).text,
        client.get("/api/index").text,
        client.get("/api/cases/s1-1.png").text,
        client.get("/").text,
        client.get("/metrics").text,
    ]
    client.close()
    assert not [text for text in texts if str(tmp_path) in text]


def test_filters_and_patients(client: "httpx.Client", png: Png) -> None:
    def studies(**fields: Any) -> list[str]:
        reply = client.post("/api/search", files=files(png(236)), data=fields)
        assert reply.status_code == 200, reply.text
        return [case["study"] for case in reply.json()["cases"]]

    assert studies() == ["s4", "s3", "s2", "s1"]
    assert studies(label="normal") == ["s2", "s1"]
    assert studies(patient="dee") == ["s3", "s2", "s1"]
    assert studies(view=["view 2"]) == ["s4", "s1"]
    assert studies(part="wrist") == []
    assert studies(k="1") == ["s4"]


def test_an_indexed_radiograph_leaves_its_own_patient_out(client: "httpx.Client", collection: Collection) -> None:
    indexed = Path(collection.cases[0].path).read_bytes()
    answer = client.post("/api/search", files=files(indexed)).json()
    assert answer["query"]["excluded_patients"] == ["ann"]
    assert "ann" not in {case["patient"] for case in answer["cases"]}


def test_a_study_is_remembered_only_on_request(own_client: "httpx.Client", png: Png) -> None:
    client = own_client
    plain = client.post("/api/search", files=files(png(200))).json()
    assert "remembered" not in plain
    assert plain["views"][0]["heatmap"] is None
    asked = client.post("/api/search", files=files(png(200), png(60, side=48)), data={"heatmap": "true"}).json()
    study = asked["remembered"]["study"]
    assert len(study.rsplit("/", 1)[1]) >= 22  # 128 random bits

    again = client.get(study, params={"label": "abnormal", "k": 1})
    assert [case["label"] for case in again.json()["cases"]] == ["abnormal"]
    assert again.json()["classifier"] == asked["classifier"]
    for number, side in ((1, 32), (2, 48)):
        heat = picture(client.get(f"{study}/views/{number}/heatmap?target=normal"))
        assert heat.shape == (side, side, 4)
        assert picture(client.get(f"{study}/views/{number}/image")).shape == (side, side)
    for where, side in (("view", 48), ("case", 32)):
        likeness = client.get(f"{study}/views/2/likeness", params={"case": "s1-1.png", "where": where})
        assert picture(likeness).shape == (side, side, 4)
    assert client.get(f"{study}/views/3/heatmap").status_code == 404
    assert client.get(f"{study}/views/1/likeness?case=none").status_code == 404
    assert client.get(f"{study}/views/1/likeness").json()["error"] == "case is missing"
    assert client.get(f"{study}/views/1/heatmap?target=both").status_code == 422

    assert client.delete(study).status_code == 204
    gone = client.get(f"{study}/views/1/heatmap")
    assert (gone.status_code, "no longer remembered" in gone.json()["error"]) == (404, True)
    assert client.get("/metrics").text.count("mura_search_studies_remembered 0.0") == 1


def picture(reply: "httpx.Response") -> np.ndarray[Any, Any]:
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "image/png"
    found = cv2.imdecode(np.frombuffer(reply.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert found is not None
    return found


def test_a_heatmap_over_a_radiograph_is_what_the_command_paints(client: "httpx.Client", tmp_path: Path) -> None:
    """The page lays heat over the radiograph at 60 %; so does `overlay`, but for rounding and the line's edge."""
    from retrieval.explain.rendering import heatmap_png, overlay
    from retrieval.explain.smooth_grad_cam import Heatmap, Smoothing

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 60), np.uint8)
    values = np.tile(np.linspace(0, 0.74, 60, dtype=np.float32), (40, 1))
    heat = Heatmap(values, "abnormal", Smoothing())
    layer = cv2.imdecode(np.frombuffer(heatmap_png(heat, 768, 255), np.uint8), cv2.IMREAD_UNCHANGED)
    assert layer is not None
    alpha = 0.6 * layer[..., 3:] / 255
    seen = pixels[..., None] * (1 - alpha) + layer[..., :3] * alpha
    differences = np.abs(seen - overlay(pixels, heat, 0.6).astype(float))
    assert differences[:, :40].max() <= 2  # the white line begins at three quarters of the strongest value


def test_cases_are_known_by_name_and_never_by_path(serve: Serve, collection: Collection) -> None:
    httpx = pytest.importorskip("httpx")
    with httpx.Client(base_url=serve()) as small, httpx.Client(base_url=serve(files=True)) as full:
        record = small.get("/api/cases/s4-2.png").json()
        assert record == {
            "label": "abnormal", "case": "s4-2.png", "study": "s4", "patient": "dee", "part": "finger",
            "view": "view 2", "split": "", "finding": "",
        }  # fmt: skip
        stored = small.get("/api/cases/s4-2.png/image")
        assert stored.headers["content-type"] == "image/jpeg"
        own = cv2.imread(collection.cases[-1].path, cv2.IMREAD_UNCHANGED)
        assert own is not None
        assert np.array_equal(picture(full.get("/api/cases/s4-2.png/image")), own)
        assert full.get("/api/cases/s4-2.png/image?small=true").content == stored.content
        path = collection.cases[0].path
        for name in ("none.png", path, path.replace("/", "%2F"), "..%2F..%2Fetc%2Fpasswd", "%00", "s4-2.png%00.jpg"):
            for client in (small, full):
                assert client.get(f"/api/cases/{name}").status_code == 404
                assert client.get(f"/api/cases/{name}/image").status_code == 404
        Path(collection.cases[0].path).unlink()
        gone = full.get("/api/cases/s1-1.png/image")
        assert gone.status_code == 404
        assert str(collection.root) not in gone.text


def test_what_the_index_holds(client: "httpx.Client") -> None:
    about = client.get("/api/index").json()
    counted = {name: about[name] for name in ("name", "cases", "studies", "patients", "parts", "labels", "synthetic")}
    assert counted == {
        "name": "index", "cases": 6, "studies": 4, "patients": 4, "parts": {"finger": 6},
        "labels": {"normal": 3, "abnormal": 3}, "synthetic": False,
    }  # fmt: skip
    assert client.get("/healthz").text == "ok\n"
    assert client.get("/readyz").text == "ok\n"


def test_metrics_name_routes_and_no_cases(own_client: "httpx.Client", png: Png) -> None:
    client = own_client
    client.post("/api/search", files=files(png(200)))
    client.get("/api/cases/s4-2.png")
    text = client.get("/metrics").text
    assert 'mura_search_requests_total{method="POST",route="/api/search",status="200"} 1.0' in text
    assert 'route="/api/cases/{case:path}"' in text
    assert "mura_search_pictures_encoded_total 1.0" in text
    assert "mura_search_index_cases 6.0" in text
    assert "s4-2" not in text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"k": "0"}, "k is how many"),
        ({"k": "many"}, "k is how many"),
        ({"k": "\u0665"}, "k is how many"),
        ({"k": ["1", "2"]}, "k is given more than once"),
        ({"label": "broken"}, "label is normal or abnormal"),
        ({"colour": "red"}, "no field colour"),
        ({"heatmap": "yes"}, "heatmap is true or false"),
        ({"patient": "a\0b"}, "patient is too long, or is not text"),
    ],
)
def test_a_wrong_question_is_told_in_a_sentence(
    client: "httpx.Client", png: Png, fields: dict[str, Any], words: str
) -> None:
    reply = client.post("/api/search", files=files(png(200)), data=fields)
    assert reply.status_code == 422
    assert words in reply.json()["error"]


def test_no_radiograph(client: "httpx.Client") -> None:
    for reply in (
        client.post("/api/search", files=[("files", ("", b""))]),
        client.post("/api/search", data={"k": "1"}, files=[("other", ("a.png", b"x"))]),
    ):
        assert reply.status_code == 422
    assert client.post("/api/search", data={"k": "1"}).status_code == 415
    assert client.post("/api/search", json={}).status_code == 415
    broken = client.post("/api/search", content=b"x", headers={"content-type": "multipart/form-data; boundary=b"})
    assert broken.status_code == 400
    missing = client.post("/api/search", content=b"x", headers={"content-type": "multipart/form-data"})
    assert "cannot be read" in missing.json()["error"]


def test_one_bad_view_is_left_out_and_only_bad_ones_are_refused(client: "httpx.Client", png: Png) -> None:
    answer = client.post("/api/search", files=files(png(200), b"no image")).json()
    assert answer["query"]["files"] == ["view1.png"]
    assert any("left out: view2.png is not an image" in warning for warning in answer["warnings"])
    refused = client.post("/api/search", files=files(b"no image"))
    assert (refused.status_code, "view1.png is not an image" in refused.json()["error"]) == (422, True)


def test_the_description_names_every_route_and_holds_for_the_answers(client: "httpx.Client", png: Png) -> None:
    from web.models import AnswerDocument, CaseRecord, IndexSummary

    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/api/search", "/api/studies/{study}", *(f"/api/studies/{{study}}/views/{{number}}/{name}" for name in (
            "image", "values", "heatmap", "likeness", "regions"
        )), "/api/index", "/api/atlas", "/api/atlas/place", "/api/cases/{case}", "/api/cases/{case}/image",
        "/api/cases/{case}/search", "/api/filing", "/api/filing/studies", "/api/filing/labels", "/api/filing/aside",
        "/api/filing/undo", "/api/worklist", "/healthz", "/readyz", "/metrics",
    }  # fmt: skip
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))
    schemas = document["components"]["schemas"]
    assert "HTTPValidationError" not in schemas
    form = document["paths"]["/api/search"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    both = {"k", "patient", "part", "view", "label", "vote", "heatmap"}
    assert set(form["properties"]) == both | {"files", "one_study", "add_to"}
    asked = {parameter["name"] for parameter in document["paths"]["/api/studies/{study}"]["get"]["parameters"]}
    assert asked == both | {"study", "download"}
    # Models forbid unknown fields, so a field that the models lack fails here.
    answer = client.post("/api/search", files=files(png(200)), data={"heatmap": "true"}).json()
    assert set(schemas["AnswerDocument"]["properties"]) == set(answer)
    AnswerDocument.model_validate(answer)
    AnswerDocument.model_validate(client.get(answer["remembered"]["study"]).json())
    IndexSummary.model_validate(client.get("/api/index").json())
    CaseRecord.model_validate(client.get("/api/cases/s4-2.png").json())


def test_errors_are_problem_details(client: "httpx.Client") -> None:
    reply = client.get("/api/cases/none")
    assert (reply.status_code, reply.headers["content-type"]) == (404, "application/problem+json")
    sentence = "the index has no such case, or no longer has it"
    assert reply.json() == {
        "type": "urn:mura-search:problem:not-found", "title": "Not found", "status": 404, "detail": sentence,
        "error": sentence,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "url", "allowed"),
    [
        ("PUT", "/api/studies/x", "DELETE, GET, HEAD"),
        ("GET", "/api/search", "POST"),
        ("OPTIONS", "/api/index", "GET, HEAD"),
        ("POST", "/static/page.js", "GET, HEAD"),
    ],
)
def test_a_wrong_method_learns_the_right_ones(client: "httpx.Client", method: str, url: str, allowed: str) -> None:
    reply = client.request(method, url)
    assert (reply.status_code, reply.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    "url", ["/", "/docs", "/healthz", "/api/index", "/api/cases/s4-2.png/image", "/static/page.js"]
)
def test_head_is_get_without_a_body(client: "httpx.Client", url: str) -> None:
    full, head = client.get(url), client.head(url)
    assert head.status_code == full.status_code == 200
    assert (head.content, head.headers["content-length"]) == (b"", str(len(full.content)))


@pytest.mark.parametrize(
    "url", ["/api/index", "/api/cases/s4-2.png", "/api/cases/s4-2.png/image", "/openapi.json", "/static/page.js"]
)
def test_a_client_that_has_it_already_gets_it_once(client: "httpx.Client", url: str) -> None:
    first = client.get(url)
    again = client.get(url, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert client.get(url, headers={"if-none-match": '"another"'}).content == first.content
    kept = "no-store" if url.startswith("/api/") else "no-cache"
    assert first.headers["cache-control"] == kept, "a browser keeps nothing of a patient, and the program's own files"


def test_filters_choose_who_votes_only_on_request(client: "httpx.Client", png: Png) -> None:
    def vote(**fields: Any) -> tuple[float, list[str]]:
        answer = client.post("/api/search", files=files(png(200)), data=fields).json()
        return answer["knn"]["probability"], [case["study"] for case in answer["cases"]]

    everybody, _ = vote()
    assert vote(view="view 2") == (everybody, ["s4", "s1"])
    assert vote(view="view 2", vote="filtered")[0] != everybody
    assert vote(part="wrist") == (everybody, [])


def test_findings_of_voting_studies_are_tallied_and_shown(
    serve: Serve, collection: Collection, model: Path, tmp_path: Path, png: Png
) -> None:
    named = {"s3": "fracture", "s4": "Fracture; plate"}
    cases = tuple(replace(case, finding=named.get(case.study, "")) for case in collection.cases)
    build_index(replace(collection, cases=cases), tmp_path / "findings", model=model)
    httpx = pytest.importorskip("httpx")
    with httpx.Client(base_url=serve(tmp_path / "findings"), timeout=20) as client:
        answer = client.post("/api/search", files=files(png(225)), data={"k": "4"}).json()
        weights = {case["study"]: case["weight"] for case in answer["cases"]}
        assert [share["finding"].lower() for share in answer["findings"]] == ["fracture", "plate"]
        both, plate = (share["weight"] for share in answer["findings"])
        assert (both, plate) == (pytest.approx(weights["s3"] + weights["s4"]), pytest.approx(weights["s4"]))
        assert [share["studies"] for share in answer["findings"]] == [2, 1]
        assert answer["knn"]["studies"] == 4
        page = client.post("/search", files=files(png(225))).text
        assert "Findings to think of" in page
        assert f"{100 * plate:.0f} %" in page
        assert "These are all 4 voting studies." in page
        assert client.get("/api/cases/s4-1.png").json()["finding"] == "Fracture; plate"


def test_radiographs_of_several_studies_are_refused_unless_told_otherwise(
    client: "httpx.Client", collection: Collection
) -> None:
    sent = files(*(Path(collection.cases[number].path).read_bytes() for number in (0, 2)))  # of ann and bob
    refused = client.post("/api/search", files=sent)
    assert refused.status_code == 422
    assert refused.json()["type"] == "urn:mura-search:problem:several-studies"
    assert "the radiographs are of 2 patients" in refused.json()["detail"]
    answer = client.post("/api/search", files=sent, data={"one_study": "true"})
    assert answer.json()["query"]["excluded_patients"] == ["ann", "bob"]


def test_an_answer_says_which_program_and_which_state_of_the_index_gave_it(
    own_client: "httpx.Client", png: Png
) -> None:
    from retrieval import __version__

    answer = own_client.post("/api/search", files=files(png(200))).json()
    assert answer["version"] == __version__
    assert answer["index"]["generation"] == own_client.get("/api/index").json()["generation"]
    metrics = own_client.get("/metrics").text
    assert 'mura_search_build_info{python="3' in metrics.replace(f',version="{__version__}"', "")
    assert "process_resident_memory_bytes" in metrics
    assert 'route="(refused)"' not in own_client.get("/openapi.json").text + own_client.get("/metrics").text


def test_metrics_have_the_scores_of_answers(own_client: "httpx.Client", png: Png) -> None:
    """After one answer each score is counted once, in every bin from its own on."""
    from prometheus_client.parser import text_string_to_metric_families

    assert own_client.post("/api/search", files=files(png(200))).status_code == 200
    families = {family.name: family for family in text_string_to_metric_families(own_client.get("/metrics").text)}
    samples = families["mura_search_score"].samples
    for score in ("classifier", "knn", "similarity"):
        own = [sample for sample in samples if sample.labels["score"] == score]
        bins = [sample.value for sample in own if sample.name.endswith("_bucket")]
        assert len(bins) == 20
        assert bins == sorted(bins)
        assert bins[-1] == 1
        (total,) = (sample.value for sample in own if sample.name.endswith("_sum"))
        first = next(sample for sample in own if sample.name.endswith("_bucket") and sample.value == 1)
        assert total <= float(first.labels["le"])
    assert "mura_search_drift_parted" not in families  # one answer says nothing
