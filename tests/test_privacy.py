"""Nothing leaves the machine: no command connects anywhere else, or leaves a file of a library in the home folder."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from retrieval.datasets.collection import Collection

ROOT = Path(__file__).parents[1]
STRACE = shutil.which("strace")
MAIN = [sys.executable, "-c", "from cli.main import main; main()"]
# What a hospital sets on its machines for other programs: FastAPI would then send the path of every request.
WATCHED = {"FASTAPI_OTEL_AUTO_CONFIGURE": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://192.0.2.1:4318"}
LOCAL = re.compile(r"AF_UNIX|AF_NETLINK|inet_addr\(\"127\.|inet_pton\(AF_INET6, \"::1\"|sin_port=htons\(0\)")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty home folder."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def data(squares: Callable[..., Collection]) -> Path:
    """A case table of eight studies of grey squares."""
    studies = [(f"p{i}", f"s{i}", i % 2, [30 + 5 * i + 150 * (i % 2)]) for i in range(8)]
    collection = squares(studies)
    table = collection.root / "cases.csv"
    rows = [f"{case.case},{case.label_name},{case.patient},{case.study}" for case in collection.cases]
    table.write_text("\n".join(["path,label,patient,study", *rows]) + "\n", encoding="utf-8")
    return table


def environment(home: Path) -> dict[str, str]:
    """The environment of a user whose home folder this is, and who has set nothing."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "MURA_", "ORT_"))}
    return {**kept, "HOME": str(home), "TMPDIR": str(home.parent), **WATCHED}


def traced(home: Path, *arguments: str | Path) -> tuple[list[str], "subprocess.Popen[str]"]:
    """A command as a process, under strace where that is there; gives where the trace is written, too."""
    trace = home.parent / "trace.txt"
    watch = [STRACE, "-f", "-e", "trace=connect,sendto,sendmsg", "-o", str(trace)] if STRACE else []
    command = [*watch, *MAIN, *map(str, arguments)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(home),
        start_new_session=True,
    )
    return [str(trace)] if STRACE else [], process


def contacts(traces: list[str]) -> list[str]:
    """The system calls that name an address of another machine."""
    lines = [line for trace in traces for line in Path(trace).read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if re.search(r"sa_family=AF_INET", line) and not LOCAL.search(line)]


def files_under(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def run(home: Path, *arguments: str | Path) -> None:
    """Run a command to its end: it succeeds, contacts nobody, and leaves no file in the home folder."""
    traces, process = traced(home, *arguments)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert contacts(traces) == []
    assert files_under(home) == set()


def test_build_query_audit_and_evaluate(home: Path, data: Path, model: Path) -> None:
    index = home.parent / "index"
    run(home, "index", "build", data, "--index", index, "--model", model)
    run(home, data.parent / "s1-1.png", "--index", index, "--report", home.parent / "answer.html")
    run(home, "audit", data, "--deep", "--model", model)
    half = home.parent / "half"
    run(home, "index", "build", data, "--split", "train", "--index", half, "--model", model)
    run(home, "evaluate", data, "--split", "valid", "--index", half, "--rounds", "100")


def test_serve(home: Path, data: Path, model: Path) -> None:
    pytest.importorskip("uvicorn", reason="the extra web is not installed")
    httpx = pytest.importorskip("httpx", reason="httpx is not installed")
    index = home.parent / "index"
    run(home, "index", "build", data, "--index", index, "--model", model)
    traces, process = traced(home, "serve", "--index", index, "--port", "0")
    assert process.stderr is not None
    address = re.findall(r"http://127\.0\.0\.1:\d+/", process.stderr.readline())[0]
    assert httpx.get(address, timeout=20).status_code == 200
    sent = {"files": (data.parent / "s1-1.png").read_bytes()}
    assert httpx.post(f"{address}search", files=sent, follow_redirects=True, timeout=20).status_code == 200
    os.killpg(process.pid, signal.SIGINT)  # strace itself ignores it
    _, errors = process.communicate(timeout=20)
    assert "telemetry" not in errors.lower()  # FastAPI complains if it tries, and cannot
    if STRACE:
        assert Path(traces[0]).read_text(encoding="utf-8")
    assert contacts(traces) == []
    assert files_under(home) == set()


@pytest.mark.slow
def test_train(home: Path, data: Path) -> None:
    pytest.importorskip("torch", reason="the extra train is not installed")
    small = ["--backbone", "timm:test_efficientnet", "--from-scratch", "--size", "64", "--epochs", "1"]
    traces, process = traced(home, "train", data, *small, "--out", home.parent / "run")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert contacts(traces) == []
    assert not [name for name in files_under(home) if "mura-search" not in name]  # its own cache of prepared pictures


def test_a_contact_is_noticed(tmp_path: Path) -> None:
    trace = tmp_path / "trace.txt"
    address = 'connect(3, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("192.0.2.1")}, 16) = 0\n'
    trace.write_text(address, encoding="utf-8")
    assert len(contacts([str(trace)])) == 1
    trace.write_text(address.replace("192.0.2.1", "127.0.0.1"), encoding="utf-8")
    assert contacts([str(trace)]) == []
