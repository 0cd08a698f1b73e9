"""DICOM on the command line, and that no value of a header gets out."""

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from tests.pictures import grey_square

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
pytest.importorskip("pylibjpeg", reason="the extra dicom is not installed")

Run = Callable[..., Result]
Write = Callable[..., Path]

# Elements whose value decides how the picture is read, and those that are not text.
STRUCTURE = {
    *("SOPClassUID", "Modality", "PhotometricInterpretation", "PresentationLUTShape", "VOILUTFunction", "PixelData"),
    *("SpecificCharacterSet", "NumberOfFrames", "WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept"),
}
NAME = "Q7MARK"  # no byte sequence that a picture, a hash or a sentence has by chance
NUMBER = "271828182845904523536"
TEXTS = {"PN", "LO", "SH", "ST", "LT", "UT", "UC", "AE", "CS", "UR"}


def marked(ds: Any) -> None:
    """A marker in every text element of the standard's dictionary, nested ones, private ones, UIDs and numbers."""
    inner = pydicom.Dataset()
    inner.PatientName = f"{NAME}^NESTED"
    inner.ReferencedSOPInstanceUID = f"1.2.{NUMBER}.1"
    for tag, (vr, _, _, retired, keyword) in pydicom.datadict.DicomDictionary.items():
        if not keyword or retired or keyword in STRUCTURE or tag < 0x00080000 or tag >> 16 >= 0x5400:
            continue
        if vr in TEXTS:
            ds.add_new(tag, vr, f"{NAME}^JOHN" if vr == "PN" else NAME)
        elif vr == "UI":
            ds.add_new(tag, vr, f"1.2.{NUMBER}")
        elif vr in ("DS", "IS") and keyword in ("PatientWeight", "PatientSize", "SeriesNumber", "InstanceNumber"):
            ds.add_new(tag, vr, NUMBER[:10])
    ds.ReferencedStudySequence = pydicom.Sequence([inner])
    block = ds.private_block(0x0011, f"{NAME} PRIVATE", create=True)
    block.add_new(0x01, "LO", NAME)
    block.add_new(0x02, "OB", NAME.encode())
    for keyword, vr in (("StudyDate", "DA"), ("StudyTime", "TM"), ("PatientAge", "AS")):
        ds[keyword] = pydicom.DataElement(pydicom.tag.Tag(keyword), vr, NAME, already_converted=True)


@pytest.fixture
def archive(tmp_path: Path, write_dicom: Write) -> Path:
    """Eight studies of four patients in folders named by markers, and files that are refused in every way."""
    rows = ["study,label"]
    for number in range(8):
        level = 30 + 20 * number
        pixels = grey_square(level)
        pixels[:4] = level + 10
        path = write_dicom(f"archive/{NAME}/{NAME}^{number}", pixels)
        ds = pydicom.dcmread(path)
        marked(ds)
        ds.StudyInstanceUID, ds.SOPInstanceUID = f"1.2.{NUMBER}.{number}", f"1.2.{NUMBER}.{number}.1"
        ds.PatientID = f"{NAME}{number // 2}"
        ds.file_meta.SourceApplicationEntityTitle = NAME
        ds.file_meta.ImplementationVersionName = NAME
        ds.preamble = (NAME.encode() * 22)[:128]
        ds.save_as(path)
        rows.append(f"{ds.StudyInstanceUID},{('normal', 'abnormal')[number // 4]}")
    data = path.read_bytes()
    assert data.count(NAME.encode()) > 500
    folder = path.parent
    broken: dict[str, Callable[[Any], bytes]] = {
        "cut": lambda ds: changed(ds)[:-300],
        "kind": lambda ds: changed(ds, SOPClassUID=f"1.2.{NUMBER}.9"),
        "ct": lambda ds: changed(ds, SOPClassUID="1.2.840.10008.5.1.4.1.1.2"),
        "capture": lambda ds: changed(ds, SOPClassUID="1.2.840.10008.5.1.4.1.1.7", Modality=NAME),
        "grey": lambda ds: changed(ds, PhotometricInterpretation=NAME),
        "window": lambda ds: changed(ds, VOILUTFunction=NAME, WindowCenter=1, WindowWidth=2),
        "shape": lambda ds: changed(ds, PresentationLUTShape=NAME),
        "number": lambda ds: changed(ds).replace(b"(\0\x02\0US\x02\0", b"(\0\x02\0LO\x02\0"),
    }
    for number, (name, change) in enumerate(broken.items()):
        ds = pydicom.dcmread(path)
        ds.SOPInstanceUID = f"1.2.{NUMBER}.{100 + number}"
        (folder / f"{NAME}-{name}.dcm").write_bytes(change(ds))
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path / "archive"


def changed(ds: Any, **elements: Any) -> bytes:
    import io

    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=False)
    return file.getvalue()


def every_byte(*folders: Path) -> Iterator[tuple[str, bytes]]:
    for folder in folders:
        for path in folder.rglob("*"):
            yield str(path.relative_to(folder)), b""
            if path.is_file():
                yield path.name, path.read_bytes()


def leaks(text: bytes) -> bool:
    lowered = text.lower()
    wide = (NAME.lower().encode("utf-16-le"), NAME.lower().encode("utf-16-be"))
    return any(mark in lowered for mark in (NAME.lower().encode(), NUMBER[:10].encode(), *wide))


def test_no_value_of_a_header_gets_out(
    archive: Path,
    model: Path,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Build, ask, add, change, check, audit and evaluate; then every byte written or printed is searched.

    Printed is what the commands print, what native code writes to the process's own streams, warnings and logs.
    """
    place, labels, config = tmp_path / "index", tmp_path / "labels.csv", tmp_path / "config"
    query = tmp_path / "q.dcm"
    query.write_bytes((archive / NAME / f"{NAME}^1").read_bytes())
    dicom = (archive, "--layout", "dicom", "--labels", labels)
    at = ("--index", place)
    said: list[tuple[str, bytes]] = []
    for name, folder in (("CONFIG", config), ("DATA", tmp_path / "user"), ("CACHE", tmp_path / "cache")):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(folder))
    monkeypatch.setenv("MURA_SEARCH_CACHE", str(tmp_path / "cache" / "pictures"))
    monkeypatch.chdir(tmp_path)
    caplog.set_level("DEBUG")

    def ask(*arguments: str | Path, code: int = 0) -> str:
        caplog.clear()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            done = run(*arguments)
        assert done.exit_code == code, done.stderr
        native = capfd.readouterr()
        text = [done.stdout, done.stderr, native.out, native.err, caplog.text, *(str(one.message) for one in caught)]
        said.append((" ".join(map(str, arguments)), "\n".join(text).encode()))
        return done.stdout

    report = json.loads(ask("index", "build", *dicom, *at, "--model", model, "--json"))
    assert (report["cases"], report["patients"], len(report["quarantined"])) == (10, 4, 2)
    ask("index", "build", *dicom, *at, "--model", model, "--replace")
    answer = json.loads(ask(query, *at, "--json"))
    assert len(answer["cases"]) == 5  # of six studies of other patients
    assert len(answer["query"]["excluded_patients"]) == 1
    ask(query, *at)
    ask("index", "add", *dicom, *at)
    ask("index", "info", *at, "--json")
    ask("index", "info", *at)
    ask("index", "verify", *at)
    ask("audit", *dicom)
    ask("audit", *dicom, "--json")
    ask("evaluate", *dicom, *at, code=1)
    ask("index", "remove", "--patient", answer["cases"][0]["patient"], *at)
    for path in sorted((archive / NAME).glob("*.dcm")):
        query.write_bytes(path.read_bytes())
        ask(query, *at, code=int(path.stem.rpartition("-")[2] not in ("window", "shape")))
    ask("index", "build", archive, "--index", tmp_path / "other", code=1)  # without a table
    assert len(said) == 21
    assert [arguments for arguments, text in said if leaks(text)] == []
    written = list(every_byte(place, config, tmp_path / "user", tmp_path / "cache"))
    assert any(name == "cases.sqlite" for name, _ in written)
    assert [name for name, content in written if leaks(content) or leaks(name.encode())] == []


def test_the_search_for_leaks_finds_them(archive: Path, model: Path, tmp_path: Path, run: Run) -> None:
    """With kept identifiers the same search finds patients and studies in the index."""
    place = tmp_path / "kept"
    built = run("index", "build", archive, "--labels", tmp_path / "labels.csv", "--keep-identifiers", "--index", place,
                "--model", model)  # fmt: skip
    assert built.exit_code == 0
    assert any(leaks(content) for _, content in every_byte(place))


def test_labels_in_the_folder_are_found(archive: Path, model: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "labels.csv").rename(archive / "labels.csv")
    built = run("index", "build", archive, "--index", tmp_path / "index", "--model", model)
    assert built.stdout.startswith("Indexed 10 radiographs of 8 studies")
    assert "skipped, DICOM but not radiographs: 3 " in built.stderr
    info = run("index", "info", "--index", tmp_path / "index")
    assert "(dicom)" in info.stdout


def test_a_missing_extra_names_the_command(
    archive: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    monkeypatch.delitem(sys.modules, "retrieval.images.dicom_reader", raising=False)
    result = run("index", "build", archive, "--labels", tmp_path / "labels.csv", "--index", tmp_path / "index")
    assert result.exit_code == 1
    assert result.stderr == 'error: pydicom is not installed; run: pip install "mura-search[dicom]"\n'
