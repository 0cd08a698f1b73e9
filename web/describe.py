"""The API's own description, OpenAPI: forms, answers and refusals, each with an example."""

from collections.abc import Collection
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from index.case import LABEL_NAMES
from retrieval.answer import Answer
from web.service.question import MOST_SHOWN
from web.settings import TOKEN_VARIABLE

__all__ = [
    "ANSWERS",
    "CASE",
    "ERRORS",
    "INDEX",
    "PICTURE",
    "QUESTION",
    "SEARCH",
    "TEXT",
    "WORKLIST",
    "describe",
    "parameters",
]

Json = dict[str, Any]
Responses = dict[int | str, Json]

_EXAMPLE: Json = {
    "schema": "mura-search/answer/1",
    "query": {"files": ["pa.png"], "views": 1, "excluded_patients": []},
    "classifier": {"probability": 0.83, "abnormal": True, "threshold": 0.43},
    "knn": {"probability": 0.76, "abnormal": True, "threshold": 0.43, "k": 15},
    "agreement": True,
    "familiarity": {"similarity": 0.91, "limit": 0.84, "familiar": True, "reasons": []},
    "views": [{"file": "pa.png", "classifier": 0.83, "knn": 0.76, "similarity": 0.91, "heatmap": None}],
    "cases": [
        {
            "rank": 1, "similarity": 0.91, "weight": 0.07, "label": "abnormal", "study": "patient00029/study1",
            "patient": "patient00029", "part": "finger", "view": "", "case": "patient00029/study1/image1.png",
            "path": "", "laterality": "right",
        }
    ],
    "warnings": [],
    "notices": [],
    "verdict": "abnormal",
    "model": {"name": "upper-limb-lite0", "sha256": "84c58d8a", "synthetic": False},
    "index": {"path": "index", "cases": 5106, "studies": 1935, "synthetic": False},
    "seconds": {"load": 0.0, "encode": 0.05, "search": 0.001, "total": 0.051, "heatmap": 0.0},
    "report": None,
}  # fmt: skip
_CASE = {name: _EXAMPLE["cases"][0][name] for name in ("label", "case", "study", "patient", "part", "view")}
_INDEX: Json = {
    "name": "index", "cases": 5106, "studies": 1935, "patients": 1867, "parts": {"finger": 5106}, "views": {"": 5106},
    "labels": {"normal": 3138, "abnormal": 1968}, "generation": 3, "synthetic": False,
    "model": {"name": "upper-limb-lite0", "sha256": "84c58d8a"},
}  # fmt: skip
_WORKLIST: Json = {
    "schema": "mura-search/worklist/1", "folder": "inbox", "ranking": False, "made": "2026-03-02T08:15:00+00:00",
    "changes": 12, "trouble": "", "not_read": 0,
    "studies": [
        {
            "number": "0f3b9a6c1d2e4f58", "rank": 1, "study": "patient00031/study1", "mean": 0.795, "agreement": True,
            **{name: _EXAMPLE[name] for name in ("classifier", "knn", "familiarity", "warnings")},
            "nearest": _EXAMPLE["cases"][0], "files": ["pa.png"],
        }
    ],
    "skipped": [{"study": "bad.png", "reason": "bad.png is no image that can be read; export it as PNG, JPEG or TIFF"}],
}  # fmt: skip
_FIELDS: dict[str, Json] = {
    "k": {"type": "integer", "minimum": 1, "maximum": MOST_SHOWN, "description": "How many similar studies to show."},
    "patient": {"type": "string", "maxLength": 100, "description": "Whose study it is; not among the similar ones."},
    "part": {"type": "array", "items": {"type": "string", "maxLength": 100}, "maxItems": 8},
    "view": {"type": "array", "items": {"type": "string", "maxLength": 100}, "maxItems": 8},
    "label": {"type": "array", "items": {"enum": list(LABEL_NAMES)}, "maxItems": 2},
    "heatmap": {"enum": ["true", "false"], "description": "Whether to remember the study, for its heatmaps."},
}


def _json(description: str, schema: Json, example: object) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema, "example": example}}}


def _reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _error(description: str, sentence: str) -> Json:
    return _json(description, _reference("Refusal"), {"error": sentence})


ERRORS: Responses = {
    400: _error("A damaged form", "the form cannot be read: Missing boundary in multipart"),
    401: _error("No token", "log in on the page, or send the token in a header: Authorization: Bearer TOKEN"),
    403: _error("Asked by another site's page", "another site's page may not ask this server"),
    404: _error("Not there", "the index holds no such case, or no longer"),
    408: _error("Sent too slowly", "the request took longer than 60 s to arrive"),
    413: _error("Too much", "at most 20 radiographs of one study can be sent at once"),
    415: _error("Not a form", "send the radiographs as multipart/form-data, in fields named files"),
    421: _error("Another host's name", "this server does not go by that name; start it with --name NAME to allow it"),
    422: _error("What cannot be answered", "pa.png is no image that can be read; export it as PNG, JPEG or TIFF"),
    503: _error("Busy; see Retry-After", "too much is asked at once; try again in a moment"),
}
ANSWERS: Responses = {200: _json("The answer", _reference("Answer"), _EXAMPLE), **ERRORS}
CASE: Responses = {200: _json("The case's record", {"type": "object"}, _CASE), **ERRORS}
INDEX: Responses = {200: _json("Counts, and the model", {"type": "object"}, _INDEX), **ERRORS}
WORKLIST: Responses = {200: _json("The list as it is now", {"type": "object"}, _WORKLIST), **ERRORS}
PICTURE: Responses = {
    200: {
        "description": "The picture",
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in ("image/png", "image/jpeg")},
    },
    **ERRORS,
}
TEXT: Responses = {
    200: {"description": "Text", "content": {"text/plain": {"schema": {"type": "string"}, "example": "ok\n"}}},
    **ERRORS,
    503: {"description": "Not ready", "content": {"text/plain": {"schema": {"type": "string"}}}},
}
_FORM: Json = {
    "type": "object",
    "required": ["files"],
    "additionalProperties": False,
    "properties": {
        "files": {
            "type": "array", "minItems": 1, "maxItems": 20, "items": {"type": "string", "format": "binary"},
            "description": "The views of one study: PNG, JPEG, TIFF and others.",
        },
        **_FIELDS,
    },
}  # fmt: skip
SEARCH: Json = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": _FORM, "encoding": {"files": {"contentType": "application/octet-stream"}}}
        },
    }
}
QUESTION: Json = {
    "parameters": [
        {
            "name": name,
            "in": "query",
            "schema": schema,
            "description": schema.get("description", f"Only of this {name}."),
        }
        for name, schema in _FIELDS.items()
    ]
}


def parameters(**named: Collection[str] | None) -> Json:
    """Query parameters and the values each may have; None for any."""
    return {
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": values is None,
                "schema": {"type": "string"} if values is None else {"enum": list(values)},
            }
            for name, values in named.items()
        ]
    }


def describe(app: FastAPI) -> Json:
    """The OpenAPI document of an app whose routes are those of `web.routes.api`."""
    document = get_openapi(
        title="mura-search",
        version=app.version,
        description="Reads radiographs and answers with a diagnosis and its evidence. Not a medical device.",
        routes=app.routes,
    )
    answer = TypeAdapter(Answer).json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(answer.pop("$defs"))
    answer["properties"]["schema"] = {"const": _EXAMPLE["schema"]}
    answer["properties"]["warnings"] = {"type": "array", "items": {"type": "string"}}
    answer["properties"]["verdict"] = {"enum": ["abnormal", "normal", "undecided", "unfamiliar"]}
    answer["properties"]["remembered"] = {
        "type": "object",
        "properties": {"study": {"type": "string"}, "seconds": {"type": "number"}},
        "description": "Where heatmaps of the study can be had, and for how long; only where they were asked for.",
    }
    schemas["Answer"] = answer
    schemas["Refusal"] = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
    document["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": f"The token of --token-file or {TOKEN_VARIABLE}."}
    }
    document["security"] = [{"token": []}, {}]
    for path in document["paths"].values():
        for operation in path.values():
            answered = operation["responses"].get("200", {}).get("content", {}).get("application/json", {})
            if answered.get("schema") == _reference("Answer"):
                answered["example"] = _EXAMPLE  # FastAPI has taken its nulls away
            content = operation["responses"].get("422", {}).get("content", {})
            if "HTTPValidationError" in str(content):
                operation["responses"]["422"] = ERRORS[422]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    return document
