"""Random requests: everything that the API's own description allows, and much that it does not, never gives a 500."""

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("fastapi", reason="the extra web is not installed")
pytest.importorskip("schemathesis", reason="schemathesis is not installed")

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from tests.repetitions import repetitions

PROBLEM = {"type", "title", "status", "detail", "error"}
CHECKS = [
    schemathesis.checks.status_code_conformance,
    schemathesis.checks.content_type_conformance,
    schemathesis.checks.response_schema_conformance,
]
"""What an answer has must be described: its status, its type and its fields."""
Serve = Callable[..., str]
Png = Callable[..., bytes]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_no_request_crashes_the_server(serve: Serve) -> None:
    base = serve(limits={"body": 1 << 20})
    schema = schemathesis.openapi.from_url(f"{base}/openapi.json")
    asked: dict[str, set[int]] = {}
    for result in schema.get_all_operations():
        found: Any = result
        operation = found.ok()
        for mode in schemathesis.GenerationMode:

            @settings(
                max_examples=repetitions(6, 25),
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
                derandomize=True,
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                reply = case.call(base_url=base)
                asked.setdefault(case.operation.label, set()).add(reply.status_code)
                assert reply.status_code < 500, (reply.status_code, case)
                if reply.status_code >= 400 and case.path.startswith("/api"):
                    assert set(reply.json()) == PROBLEM
                case.validate_response(reply, checks=CHECKS)

            try:
                ask()
            except Unsatisfiable:
                continue  # this operation takes no invalid request
    assert len(asked) == sum(map(len, schema.raw_schema["paths"].values()))
    assert {200} <= asked["GET /api/index"]
    assert asked["POST /api/search"] & {415, 422}


def test_no_form_crashes_the_server(serve: Serve, png: Png) -> None:
    texts = st.text(max_size=40) | st.sampled_from(["", "5", "true", "normal", "finger", "-1", "\0", "x" * 2000])
    names = st.sampled_from(["k", "patient", "part", "view", "label", "heatmap", "files", "other"])
    contents = st.binary(max_size=200) | st.sampled_from(
        [png(200), png(30)[:60], png(10) + b"tail", b"\x89PNG\r\n\x1a\n"]
    )
    with httpx.Client(base_url=serve(), timeout=30) as client:

        @settings(max_examples=repetitions(30, 150), deadline=None, database=None, derandomize=True)
        @given(st.lists(st.tuples(names, texts), max_size=5), st.lists(st.tuples(texts, contents), max_size=4))
        def ask(fields: list[tuple[str, str]], files: list[tuple[str, bytes]]) -> None:
            parts: list[tuple[str, Any]] = [(name, (None, value.encode())) for name, value in fields]
            parts += [("files", (name or "a", data)) for name, data in files]
            reply = client.post("/api/search", files=parts)
            assert reply.status_code in (200, 400, 413, 415, 422), reply.text
            assert reply.status_code == 200 or set(reply.json()) == PROBLEM

        ask()
