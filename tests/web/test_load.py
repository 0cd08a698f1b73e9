"""Many clients at once, for a moment; benchmarks/server_load.py does it for a minute and measures."""

import gc
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("fastapi", reason="the extra web is not installed")

import httpx

Png = Callable[..., bytes]
Serve = Callable[..., str]


def test_32_clients_at_once_are_all_answered_with_their_own_answer(serve: Serve, png: Png) -> None:
    base = serve()

    def ask(client: int) -> list[tuple[int, int]]:
        wrong = []
        with httpx.Client(base_url=base, timeout=60) as asking:
            for number in range(6):
                brightness = 20 + (37 * client + 11 * number) % 215
                reply = asking.post("/api/search", files={"files": png(brightness, mark=client)})
                abnormal = reply.json().get("classifier", {}).get("abnormal")
                if reply.status_code != 200 or abnormal != (brightness > 127):
                    wrong.append((reply.status_code, brightness))
        return wrong

    with ThreadPoolExecutor(32) as pool:
        assert [one for wrong in pool.map(ask, range(32)) for one in wrong] == []
    text = httpx.get(f"{base}/metrics").text
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    encoded, batches = (float(figures[f"mura_search_{name}_encoded_total"]) for name in ("pictures", "batches"))
    assert encoded == 32 * 6
    assert batches < encoded, "concurrent uploads are encoded together"
    assert float(figures["mura_search_requests_at_work"]) == float(figures["mura_search_work_bytes"]) == 0


def test_nothing_is_left_of_requests(serve: Serve, png: Png) -> None:
    """After the first forty, many more leave no objects behind: what is remembered has bounds."""
    with httpx.Client(base_url=serve(limits={"remembered_bytes": 4096}), timeout=60) as client:

        def ask(times: int) -> Counter[str]:
            for number in range(times):
                fields = {"heatmap": "true"} if number % 2 else {}
                assert (
                    client.post("/api/search", files={"files": png(200, mark=number)}, data=fields).status_code == 200
                )
                client.post("/api/search", files={"files": b"no image"})
            gc.collect()
            return Counter(type(each).__name__ for each in gc.get_objects())

        first = ask(40)
        more = ask(80) - first
        more.pop("Scored", 0)  # the latest 500 answers, for drift
        # asyncio keeps some 100 cancelled timers, each with its context and its callback.
        for timed in ("TimerHandle", "Context", "builtin_function_or_method"):
            assert more.pop(timed, 0) <= 200
        assert more.total() < 100, more.most_common(5)
    assert threading.active_count() < 60
