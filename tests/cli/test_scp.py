"""`mura-search scp` as a process of its own, between Orthanc, which sends, and Orthanc, which gets the report."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
for library in ("highdicom", "pynetdicom", "pylibjpeg"):
    pytest.importorskip(library, reason="the extra dicom is not installed")

from tests.cli.orthanc import Orthanc, free_port, value  # noqa: E402

Run = Callable[..., Result]
Make = Callable[..., bytes]
STUDY = "1.2.826.8.1"


@pytest.fixture
def node(place: Path, tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], int]]]:
    """Starts `mura-search scp` with options; gives the process and its port."""
    running = []

    def start(*options: object) -> tuple[subprocess.Popen[str], int]:
        command = [
            *(sys.executable, "-c", "from cli.main import main; main()", "scp", "--port", "0", "--quiet", "0.5"),
            *map(str, ("--index", place, "--spool", tmp_path / "spool", *options)),
        ]
        process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONWARNINGS": "error"}
        )
        running.append(process)
        assert process.stderr
        found = re.search(r"listens at 127.0.0.1:(\d+)", line := process.stderr.readline())
        assert found, line + process.stderr.read()
        return process, int(found[1])

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def stopped(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    return said


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def radiograph(make: Make, number: int, **elements: Any) -> bytes:
    return make(
        np.full((32, 32), 210 + number, np.uint8), StudyInstanceUID=STUDY, SeriesInstanceUID=f"{STUDY}.1",
        SOPInstanceUID=f"{STUDY}.1.{number}", PatientID="Q", PatientName="Query^Patient", **elements,
    )  # fmt: skip


def test_an_archive_sends_and_gets_the_report(node: Callable[..., Any], dicom_bytes: Make, tmp_path: Path) -> None:
    port_of_orthanc = free_port()
    process, port = node("--caller", "ORTHANC", "--send-to", f"ORTHANC@127.0.0.1:{port_of_orthanc}")
    server = Orthanc(
        tmp_path / "orthanc", DicomPort=port_of_orthanc, DicomModalities={"mura": ["MURASEARCH", "127.0.0.1", port]}
    )
    try:
        stored = [server.put(radiograph(dicom_bytes, number)) for number in range(2)]
        server.send("mura", stored)
        wait_until(lambda: len(server.find("instances", StudyInstanceUID=STUDY)) == 5)
        kinds = sorted(value(one, "00080060") for one in server.find("instances", StudyInstanceUID=STUDY))
        assert kinds == ["CR", "CR", "OT", "OT", "SR"]
        assert len(server.find("studies", PatientID="Q")) == 1
    finally:
        server.close()
    assert "2 received, 1 answered, 0 failed, 1 delivered" in stopped(process)
    assert [path for path in (tmp_path / "spool").rglob("*") if path.is_file()] == []


def test_into_a_folder(node: Callable[..., Any], dicom_bytes: Make, tmp_path: Path) -> None:
    """And what cannot be answered is said without a name, and does not stop it."""
    from retrieval.dicom.storage_scu import Peer, send

    process, port = node("--dicom-out", tmp_path / "out")
    (tmp_path / "a.dcm").write_bytes(radiograph(dicom_bytes, 1))
    (tmp_path / "b.dcm").write_bytes(radiograph(dicom_bytes, 2))
    ds = pydicom.dcmread(tmp_path / "b.dcm")
    ds.StudyInstanceUID, ds.PhotometricInterpretation = "1.2.826.8.2", "SECRET"
    send([pydicom.dcmread(tmp_path / "a.dcm"), ds], Peer("MURASEARCH", "127.0.0.1", port), "PACS")
    failed = process.stderr.readline()
    wait_until(lambda: len(list((tmp_path / "out").glob("*.dcm"))) == 2)
    said = failed + stopped(process)
    assert "2 received, 1 answered, 1 failed, 1 delivered" in said
    assert re.search(r"a study could not be answered, and is kept in the spool as failed/[0-9a-f.-]+: study/", said)
    assert "SECRET" not in said
    assert "Query" not in said


@pytest.mark.slow
def test_a_killed_node_goes_on(node: Callable[..., Any], dicom_bytes: Make, tmp_path: Path) -> None:
    from retrieval.dicom.storage_scu import Peer, send

    process, port = node("--dicom-out", tmp_path / "out", "--quiet", "60")
    (tmp_path / "a.dcm").write_bytes(radiograph(dicom_bytes, 1))
    send([pydicom.dcmread(tmp_path / "a.dcm")], Peer("MURASEARCH", "127.0.0.1", port))
    process.kill()
    process.wait()
    assert list((tmp_path / "out").iterdir()) == []
    again, _ = node("--dicom-out", tmp_path / "out")
    wait_until(lambda: len(list((tmp_path / "out").glob("*.dcm"))) == 2)
    assert "0 received, 1 answered" in stopped(again)


def test_usage(run: Run, place: Path, tmp_path: Path) -> None:
    at = ("scp", "--index", place, "--spool", tmp_path / "spool")
    out = ("--dicom-out", tmp_path / "out")
    for wrong in ((), ("--send-to", "PACS"), (*out, "--allow", "10.1.1.1/8"), (*out, "--title", "A" * 17),
                  (*out, "--caller", "")):  # fmt: skip
        assert run(*at, *wrong).exit_code == 2, wrong
    (tmp_path / "spool").write_text("a file")
    refused = run(*at, *out, "--port", "0")
    assert refused.exit_code == 1
    assert "cannot be used" in refused.stderr


def test_the_page_and_the_node_in_one_process(place: Path, dicom_bytes: Make, tmp_path: Path) -> None:
    import urllib.request

    from retrieval.dicom.storage_scu import Peer, send

    command = [
        *(sys.executable, "-c", "from cli.main import main; main()", "serve", "--port", "0", "--scp", "0"),
        *map(str, ("--quiet", "0.5", "--index", place, "--spool", tmp_path / "spool", "--dicom-out", tmp_path / "out")),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr
            heard = re.search(r"listens at 127.0.0.1:(\d+)", process.stderr.readline())
            page = re.search(r"http://\S+", process.stderr.readline())
            assert heard
            assert page
            (tmp_path / "a.dcm").write_bytes(radiograph(dicom_bytes, 1))
            send([pydicom.dcmread(tmp_path / "a.dcm")], Peer("MURASEARCH", "127.0.0.1", int(heard[1])), "PACS")
            wait_until(lambda: len(list((tmp_path / "out").glob("*.dcm"))) == 2)
            with urllib.request.urlopen(f"{page[0]}healthz", timeout=10) as answer:
                assert answer.status == 200
        finally:
            process.send_signal(signal.SIGTERM)
            said = process.communicate(timeout=30)[1]
    assert process.returncode == 0, said
    assert "Stopped: 1 received, 1 answered, 0 failed, 1 delivered" in said
    assert "Query" not in said


def test_a_node_beside_the_page_needs_a_spool(run: Run, place: Path) -> None:
    result = run("serve", "--scp", "0", "--index", place)
    assert result.exit_code == 2
    assert "both --scp and --spool" in result.stderr
