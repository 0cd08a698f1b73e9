"""The way through an archive: Orthanc -> index -> query -> report -> Orthanc."""

import http.server
import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
for library in ("highdicom", "dicomweb_client", "pylibjpeg"):
    pytest.importorskip(library, reason="the extra dicom is not installed")

from retrieval.dicom.dicomweb import TOKEN_VARIABLE, WebArchive  # noqa: E402
from retrieval.errors import ArchiveError  # noqa: E402
from tests.cli.orthanc import Orthanc, free_port, value  # noqa: E402
from tests.pictures import grey_square  # noqa: E402

Run = Callable[..., Result]
Make = Callable[..., bytes]
QUERY = "1.2.826.9.99"


def studies(make: Make) -> Iterator[tuple[str, bytes]]:
    """Eight labelled studies of four made-up patients, one with two views, a CT, and a study to ask about."""
    for number in range(8):
        pixels = grey_square(30 + 25 * number)
        study = f"1.2.826.9.{number}"
        for view in range(1 + (number == 3)):
            yield study, make(
                pixels + view, StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1", PatientID=f"P{number // 2}",
                PatientName="Made^Up", SOPInstanceUID=f"{study}.1.{view}", AccessionNumber=f"A{number}",
            )  # fmt: skip
    yield "1.2.826.9.0", make(
        np.full((32, 32), 7, np.uint8), StudyInstanceUID="1.2.826.9.0", SeriesInstanceUID="1.2.826.9.0.2",
        PatientID="P0", SOPClassUID="1.2.840.10008.5.1.4.1.1.2", Modality="CT",
    )  # fmt: skip
    yield QUERY, make(
        np.full((32, 32), 200, np.uint8), StudyInstanceUID=QUERY, SeriesInstanceUID=f"{QUERY}.1", PatientID="Q",
        PatientName="Query^Patient", AccessionNumber="AQ", StudyDate="20260102",
    )  # fmt: skip


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory, dicom_bytes: Make) -> Iterator[Orthanc]:
    server = Orthanc(tmp_path_factory.mktemp("orthanc"))
    try:
        for _, data in studies(dicom_bytes):
            server.put(data)
        yield server
    finally:
        server.close()


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """By study, but the last two by accession number; and a study that no archive has."""
    rows = [f"1.2.826.9.{number},,{number // 4}" for number in range(6)]
    rows += [",A6,1", ",A7,abnormal", "1.2.3.777,,0", ",A*,1"]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["study,accession,label", *rows]) + "\n")
    return table


@pytest.fixture
def place(run: Run, orthanc: Orthanc, labels: Path, model: Path, tmp_path: Path) -> Path:
    """An index of what Orthanc holds."""
    built = run("index", "build", "--dicomweb", orthanc.url, "--labels", labels, "--index", tmp_path / "index",
                "--model", model)  # fmt: skip
    assert built.exit_code == 0, built.stderr
    assert built.stdout.startswith("Indexed 9 radiographs of 8 studies")
    assert "labelled studies without a radiograph in the archive: 2" in built.stderr
    return tmp_path / "index"


def test_the_whole_circle(run: Run, orthanc: Orthanc, place: Path, tmp_path: Path) -> None:
    before = orthanc.find("instances", StudyInstanceUID=QUERY)
    asked = run("dicomweb", orthanc.url, "--study", QUERY, "--index", place, "--store", orthanc.url, "--dicom-out",
                tmp_path / "out", "--json")  # fmt: skip
    assert asked.exit_code == 0, asked.stderr
    answer = json.loads(asked.stdout)
    assert answer["query"]["files"] == ["image 1"]
    assert answer["classifier"]["abnormal"] is answer["knn"]["abnormal"] is True
    assert len(answer["cases"]) == 5
    for text in ("mura-search-", "Query", "Made", "AQ"):  # the place it was fetched to, and values of headers
        assert text not in asked.stdout + asked.stderr

    found = orthanc.find("instances", StudyInstanceUID=QUERY)
    new = [one for one in found if value(one, "00080018") not in {value(known, "00080018") for known in before}]
    assert sorted(value(one, "00080060") for one in new) == ["OT", "SR"]
    for one in new:
        assert value(one, "00100020") == "Q"
        assert value(one, "00100010")["Alphabetic"] == "Query^Patient"
        assert value(one, "00080050") == "AQ"
    [study] = orthanc.find("studies", PatientID="Q")
    assert value(study, "0020000D") == QUERY

    report = next(one for one in new if value(one, "00080060") == "SR")
    files = WebArchive(orthanc.url)
    back = files._client.retrieve_instance(QUERY, value(report, "0020000E"), value(report, "00080018"))
    written = pydicom.dcmread(next((tmp_path / "out").glob("SR-*.dcm")))
    assert back.ContentSequence == written.ContentSequence
    evidence = back.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert [item.ReferencedSOPInstanceUID for item in evidence] == [value(before[0], "00080018")]

    again = run("dicomweb", orthanc.url, "--study", QUERY, "--index", place, "--json")
    assert again.exit_code == 0, again.stderr  # the heatmap that is in the study now is no view of it
    assert json.loads(again.stdout)["query"]["views"] == 1
    assert not any("left out" in warning for warning in json.loads(again.stdout)["warnings"])
    assert json.loads(again.stdout)["classifier"] == answer["classifier"]


def test_the_same_index_as_of_a_folder(
    run: Run, place: Path, dicom_bytes: Make, labels: Path, model: Path, tmp_path: Path
) -> None:
    """What comes by DICOMweb is the same radiographs: names, hashes, labels and embeddings."""
    from index.reader import IndexReader

    for number, (_, data) in enumerate(studies(dicom_bytes)):
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / str(number)).write_bytes(data)
    built = run("index", "build", tmp_path / "folder", "--labels", labels, "--index", tmp_path / "other", "--model",
                model)  # fmt: skip
    assert built.exit_code == 0, built.stderr
    tables = []
    for folder in (place, tmp_path / "other"):
        with IndexReader.open(folder) as opened:
            order = np.argsort([case.case for case in opened.cases()])
            table = [opened.cases()[row] for row in order]
            tables.append(([replace(case, digest="") for case in table], opened.embeddings()[order]))
    assert tables[0][0] == tables[1][0]
    assert len(tables[0][0]) == 9
    assert np.array_equal(tables[0][1], tables[1][1])


def test_kept_files_are_fetched_once(run: Run, orthanc: Orthanc, labels: Path, model: Path, tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    arguments = ("index", "build", keep, "--dicomweb", orthanc.url, "--labels", labels, "--index", tmp_path / "index",
                 "--model", model, "--keep-identifiers", "--replace")  # fmt: skip
    assert run(*arguments).exit_code == 0
    files = sorted(keep.rglob("*.dcm"))
    assert len(files) == 9  # no CT, and nothing that has no label
    times = [file.stat().st_mtime_ns for file in files]
    assert run(*arguments).exit_code == 0
    assert [file.stat().st_mtime_ns for file in files] == times
    asked = run("dicomweb", orthanc.url, "--study", QUERY, "--index", tmp_path / "index", "--dicom-out", tmp_path / "o")
    assert asked.exit_code == 0, asked.stderr
    report = pydicom.dcmread(next((tmp_path / "o").glob("SR-*.dcm")))
    assert len(report.PertinentOtherEvidenceSequence) == 5


def test_fetched_files_are_those_that_were_put(orthanc: Orthanc, tmp_path: Path) -> None:
    [file] = WebArchive(orthanc.url).fetch("1.2.826.9.5", tmp_path)
    fetched = pydicom.dcmread(file)
    assert file == tmp_path / "1.2.826.9.5" / "1.2.826.9.5.1" / "1.2.826.9.5.1.0.dcm"
    assert np.array_equal(fetched.pixel_array, grey_square(155))


def test_accession_numbers_are_taken_as_they_stand(orthanc: Orthanc) -> None:
    archive = WebArchive(orthanc.url)
    assert archive.studies_of("A6") == ["1.2.826.9.6"]
    assert [archive.studies_of(number) for number in ("A*", "?6", "a6", "A", "")] == [[]] * 5


def test_what_an_archive_does_not_have(run: Run, orthanc: Orthanc, place: Path, tmp_path: Path) -> None:
    for study, sentence in (
        ("1.2.3.777", "has no radiograph of this study"),
        ("../etc", "is not a Study Instance UID, which has only digits and dots"),
    ):
        asked = run("dicomweb", orthanc.url, "--study", study, "--index", place)
        assert asked.exit_code == 1
        assert sentence in asked.stderr
    with pytest.raises(ArchiveError, match="could not find the study: it answered 404"):
        WebArchive(orthanc.url.replace("dicom-web", "elsewhere")).fetch("1.2", tmp_path)
    with pytest.raises(ArchiveError, match="cannot be reached"):
        WebArchive(f"http://localhost:{free_port()}/dicom-web").fetch("1.2", tmp_path)


def test_usage(run: Run, labels: Path, tmp_path: Path) -> None:
    url = "http://localhost:1/dicom-web"
    for arguments in (
        ("index", "build"),
        ("index", "build", "--dicomweb", url),
        ("index", "build", "--dicomweb", url, "--labels", labels, "--keep-identifiers"),
        ("index", "build", "--dicomweb", url, "--labels", labels, "--dicomweb-tls", "ca"),
        ("index", "build", tmp_path, "--dicomweb-tls", "ca=x"),
    ):
        assert run(*arguments).exit_code == 2, arguments


class Recorder(http.server.BaseHTTPRequestHandler):
    """A server that notes the token it is shown, refuses the wrong one, and can lead elsewhere or fail."""

    seen: list[str | None] = []  # noqa: RUF012
    reply = 200
    body = b"[]"
    location = ""

    def do_GET(self) -> None:
        self.seen.append(self.headers.get("Authorization"))
        self.send_response(self.reply)
        if self.location:
            self.send_header("Location", self.location)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def do_POST(self) -> None:
        while (size := int(self.rfile.readline().strip() or b"0", 16)) > 0:
            self.rfile.read(size + 2)
        self.rfile.readline()
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def recorder() -> Iterator[tuple[type[Recorder], str]]:
    handler: Any = type("Handler", (Recorder,), {"seen": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield handler, f"http://localhost:{server.server_port}/dicom-web"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_token_is_sent_and_not_told(
    recorder: tuple[type[Recorder], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, url = recorder
    monkeypatch.setenv(TOKEN_VARIABLE, "s3cret")
    assert WebArchive(url).fetch("1.2", tmp_path) == []
    assert handler.seen == ["Bearer s3cret"]
    handler.reply = 401
    with pytest.raises(ArchiveError, match=rf"it answered 401; a token is taken from {TOKEN_VARIABLE}") as caught:
        WebArchive(url).fetch("1.2", tmp_path)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(ArchiveError, match="a token is not sent to pacs unencrypted; use https"):
        WebArchive("http://pacs/dicom-web")
    monkeypatch.setenv(TOKEN_VARIABLE, "two words")
    with pytest.raises(ArchiveError, match="is not a token") as caught:
        WebArchive(url)
    assert "two words" not in str(caught.value)


def test_the_token_does_not_follow_to_another_host(
    recorder: tuple[type[Recorder], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, url = recorder
    monkeypatch.setenv(TOKEN_VARIABLE, "s3cret")
    other: Any = type("Other", (Recorder,), {"seen": []})
    with http.server.HTTPServer(("127.0.0.1", 0), other) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        handler.reply, handler.location = 302, f"http://127.0.0.1:{server.server_port}/"
        WebArchive(url).fetch("1.2", tmp_path)
        server.shutdown()
        thread.join()
    assert handler.seen == ["Bearer s3cret"]
    assert other.seen == [None]


def test_answers_that_are_none(recorder: tuple[type[Recorder], str], tmp_path: Path) -> None:
    handler, url = recorder
    for body in (b"<html>", b"{", b"[1]"):
        handler.body = body
        with pytest.raises(ArchiveError, match="could not find the study: its reply is not valid DICOMweb"):
            WebArchive(url).fetch("1.2", tmp_path)
    handler.body = b'[{"00080016": 7}, {"00080018": {"Value": [["x"]]}}]'
    assert WebArchive(url).fetch("1.2", tmp_path) == []


def test_results_that_are_not_taken(recorder: tuple[type[Recorder], str], dicom_bytes: Make, tmp_path: Path) -> None:
    handler, url = recorder
    file = tmp_path / "a.dcm"
    file.write_bytes(dicom_bytes(np.zeros((4, 4), np.uint8)))
    handler.body = json.dumps(
        {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [0xA700]}}]}}
    ).encode()
    with pytest.raises(ArchiveError, match=r"did not accept 1 of 1 results \(failure 0xA700\)"):
        WebArchive(url).store([pydicom.dcmread(file)])
    handler.reply, handler.body = 409, b""
    with pytest.raises(ArchiveError, match="could not store the results: it answered 409"):
        WebArchive(url).store([pydicom.dcmread(file)])


def test_addresses_and_options_that_are_none(tmp_path: Path) -> None:
    for url in ("ftp://pacs/", "pacs", "https://", "https://user:password@pacs/dicom-web"):
        with pytest.raises(ArchiveError) as caught:
            WebArchive(url)
        if "@" in url:
            assert "password@" not in str(caught.value)
    for tls, sentence in (
        ({"cat": "x"}, "TLS has no option cat; the options are ca, cert, key"),
        ({"key": "x"}, "a TLS key needs its certificate"),
        ({"ca": str(tmp_path / "none.pem")}, "cannot be read; name a PEM file"),
    ):
        with pytest.raises(ArchiveError, match=sentence):
            WebArchive("https://pacs/dicom-web", tls)
    with pytest.raises(ArchiveError, match="need a URL that begins with https"):
        WebArchive("http://localhost/dicom-web", {"ca": "x"})


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the server's certificate, is not installed")
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        [*("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
         *("-addext", f"subjectAltName=DNS:{name}", "-keyout", str(key), "-out", str(cert))],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server with a certificate of its own, that wants to see the client's: both have to be named."""
    cert, key = certificate(tmp_path, "localhost")
    own, own_key = certificate(tmp_path, "client")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.load_verify_locations(own)
    context.verify_mode = ssl.CERT_REQUIRED
    handler: Any = type("Handler", (Recorder,), {"seen": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # refused handshakes are meant
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"https://localhost:{server.server_port}/dicom-web"
    monkeypatch.setenv(TOKEN_VARIABLE, "s3cret")
    try:
        with pytest.raises(ArchiveError, match="cannot be trusted"):
            WebArchive(url, {"cert": str(own), "key": str(own_key)}).fetch("1.2", tmp_path)
        with pytest.raises(ArchiveError):
            WebArchive(url, {"ca": str(cert)}).fetch("1.2", tmp_path)
        assert handler.seen == []
        tls = {"ca": str(cert), "cert": str(own), "key": str(own_key)}
        assert WebArchive(url, tls).fetch("1.2", tmp_path) == []
        assert handler.seen == ["Bearer s3cret"]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_query_with_dicom_out(
    run: Run, place: Path, dicom_bytes: Make, square: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "q.dcm").write_bytes(dict(studies(dicom_bytes))[QUERY])
    asked = run(tmp_path / "q.dcm", "--index", place, "--dicom-out", tmp_path / "new" / "out")
    assert asked.exit_code == 0, asked.stderr
    assert "\nABNORMAL" in asked.stdout  # behind the notice that the picture is blank
    assert sorted(file.name[:2] for file in (tmp_path / "new" / "out").iterdir()) == ["OT", "SR"]
    refused = run(square("q.png", 200), "--index", place, "--dicom-out", tmp_path / "out")
    assert refused.exit_code == 1
    assert "is not a DICOM file; a DICOM result needs a study to belong to" in refused.stderr
    assert refused.stdout == ""
    (tmp_path / "file").write_text("")
    refused = run(tmp_path / "q.dcm", "--index", place, "--dicom-out", tmp_path / "file")
    assert "cannot be written to" in refused.stderr
