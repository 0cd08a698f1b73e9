"""The page of the worklist, as its tests read it."""

import html
import re
import time
from collections.abc import Callable

import httpx

__all__ = ["MURA", "PAGE", "numbers", "ranked", "shows", "studies"]

PAGE = {"accept": "text/html"}
MURA = "XR_FINGER/patient00001/study1_positive"


def ranked(client: httpx.Client, page: str = "") -> str:
    """The page when everything is read; `page` the one that it must have changed from."""
    end = time.monotonic() + 60
    while "Rank again" not in (text := client.get("/worklist").text) or text == page:
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return text


def numbers(page: str) -> list[str]:
    """The numbers of the listed studies, in their order."""
    return re.findall(r'<td><a href="/worklist/([^"]+)">', page)


def studies(page: str) -> list[str]:
    """The names of the listed studies, in their order."""
    return [html.unescape(name) for name in re.findall(r'<td><a href="/worklist/[^"]+">([^<]+)</a>', page)]


def shows(client: httpx.Client, holds: Callable[[str], bool]) -> str:
    """The page as soon as that holds of it."""
    end = time.monotonic() + 60
    while not holds(text := client.get("/worklist").text):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return text
