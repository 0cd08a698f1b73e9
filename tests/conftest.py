"""A model of two numbers and collections of plain grey squares, small enough to be followed by hand.

The encoder takes the mean of a radiograph, m; its embedding is (m, 1) / |(m, 1)| and its logit 4 m / |(m, 1)|. A dark
square is normal and a bright one abnormal, so the neighbours of a square are those of like brightness.
"""

import io
import math
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import hypothesis
import numpy as np
import pytest
from numpy.typing import NDArray

from index.case import Case
from retrieval.datasets.collection import Collection
from retrieval.encoding.bundle import APPEARANCE, HARMONISATION, write_bundle
from retrieval.encoding.harmonisation import Harmonisation
from retrieval.encoding.head import Head
from retrieval.encoding.probes import Appearance
from retrieval.images.preprocessing import Preprocessing
from tests.pictures import grey_square

# A shell without job control starts a background command with interrupts ignored, and so does every program from there.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes is no test: a busy machine would fail it.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadgroup`, run all tests of the Milvus server in one process: a machine can run only one server.

    The marker xdist_group cannot do this: pytest-xdist 3.8 writes groups into an attribute that pytest 9 does not read.
    """
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped, unused-ignore]

    class OneServer(LoadScopeScheduling):  # type: ignore[misc, unused-ignore]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]  # tests of a file share its fixtures
            return "milvus" if file.startswith("tests/index/") and "server" in nodeid else file

    return OneServer(config, log)


SIZE, CELL = 32, 16
Specification = Sequence[tuple[str, str, int, Sequence[int]]]  # patient, study, label, brightness of each view


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, with nothing seen and no rules of its own."""
    return write_model(tmp_path_factory.mktemp("models") / "squares")


@pytest.fixture
def make_model() -> Callable[..., Path]:
    return write_model


def write_model(
    folder: Path,
    seen: Sequence[str] = (),
    rules: dict[str, object] | None = None,
    appearance: Appearance | None = None,
    hashes: NDArray[np.uint8] | None = None,
    harmonisation: Harmonisation | None = None,
) -> Path:
    folder.mkdir(parents=True)
    (folder / "encoder.onnx").write_bytes(averaging_onnx())
    zeros = np.zeros(6, np.float32)
    Head(
        attention_weight=zeros[:3],
        attention_bias=zeros[:1],
        projection_weight=np.array([[1, 0, 0, 0, 0, 0], zeros], np.float32),
        projection_bias=np.array([0, 1], np.float32),
        hidden_weight=np.array([[1, 0], [-1, 0]], np.float32),
        hidden_bias=zeros[:2],
        output_weight=np.array([4, -4], np.float32),
        output_bias=zeros[:1],
    ).save(folder / "head.safetensors")
    if appearance is not None:
        (folder / APPEARANCE).write_bytes(appearance.dump())
    if harmonisation is not None:
        (folder / HARMONISATION).write_bytes(harmonisation.dump())
    write_bundle(
        folder,
        about={"name": "squares", "backbone": "mean", "dimension": 2, "provenance": {}},
        preprocessing=Preprocessing(size=SIZE, clahe=False, mean=(0.5,) * 3, std=(0.25,) * 3),
        rules=rules,
        seen=seen,
        hashes=hashes,
    )
    return folder


def averaging_onnx() -> bytes:
    """An ONNX model (B, 3, 32, 32) -> (B, 3, 2, 2) of one AveragePool, spelt in protobuf so that no test needs onnx."""

    def varint(value: int) -> bytes:
        return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)

    def number(field: int, value: int) -> bytes:
        return varint(field << 3) + varint(value)

    def message(field: int, *parts: bytes) -> bytes:
        content = b"".join(parts)
        return varint(field << 3 | 2) + varint(len(content)) + content

    def tensor(field: int, name: bytes, side: int) -> bytes:
        dimensions = [message(1, message(2, b"B")), *(message(1, number(1, size)) for size in (3, side, side))]
        return message(field, message(1, name), message(2, message(1, number(1, 1), message(2, *dimensions))))

    def pair(name: bytes) -> bytes:
        return message(5, message(1, name), number(8, CELL), number(8, CELL), number(20, 7))

    node = message(
        1, message(1, b"x"), message(2, b"y"), message(4, b"AveragePool"), pair(b"kernel_shape"), pair(b"strides")
    )
    graph = message(7, node, message(2, b"g"), tensor(11, b"x", SIZE), tensor(12, b"y", SIZE // CELL))
    return number(1, 8) + graph + message(8, message(1, b""), number(2, 13))


@pytest.fixture
def squares(tmp_path: Path) -> Callable[..., Collection]:
    """Makes a collection: `squares([("p1", "s1", 0, [40, 50]), ...], "name")`, one file a view."""

    def make(studies: Specification, name: str = "data", synthetic: bool = False) -> Collection:
        return write_collection(tmp_path / name, studies, synthetic)

    return make


def write_collection(root: Path, studies: Specification, synthetic: bool = False) -> Collection:
    root.mkdir(parents=True)
    cases: list[Case] = []
    for patient, study, label, views in studies:
        for number, brightness in enumerate(views, start=1):
            path = root / f"{study}-{number}.png"
            write_square(path, brightness, mark=len(cases))
            cases.append(Case(path.name, study, patient, label, part="finger", view=f"view {number}", path=str(path)))
    return Collection(root, "csv", tuple(cases), (), synthetic)


@pytest.fixture
def square(tmp_path: Path) -> Callable[..., Path]:
    """Writes one file: `square("query.png", 200)`."""

    def write(name: str, brightness: int, mark: int = 999) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_square(path, brightness, mark)
        return path

    return write


def write_square(path: Path, brightness: int, mark: int = 0) -> None:
    """A `grey_square` of the model's size; `mark` makes its bytes unique."""
    pixels = grey_square(brightness, SIZE)
    pixels.ravel()[mark % pixels.size] ^= 1
    assert cv2.imwrite(str(path), pixels)


@pytest.fixture
def texture() -> Callable[..., NDArray[np.uint8]]:
    """Draws a picture (96, 80) that only its seed gives, of some brightness: `texture(3, 120)`."""

    def draw(seed: int, brightness: int = 128) -> NDArray[np.uint8]:
        dice = np.random.default_rng(seed)
        coarse = cv2.resize(dice.normal(0, 1, (5, 4)), (80, 96), interpolation=cv2.INTER_CUBIC)
        fine = cv2.GaussianBlur(dice.normal(0, 1, (96, 80)), (0, 0), 3.0)
        picture = 30 * coarse + 90 * fine
        drawn: NDArray[np.uint8] = np.clip(picture - picture.mean() + brightness, 0, 255).astype(np.uint8)
        return drawn

    return draw


@pytest.fixture
def cosine() -> Callable[[int, int], float]:
    """The similarity of two squares by their brightness: the cosine of the angle between their (m, 1)."""

    def of(one: int, other: int) -> float:
        angles = [math.atan2((value / 255 - 0.5) / 0.25, 1) for value in (one, other)]
        return math.cos(angles[0] - angles[1])

    return of


@pytest.fixture
def write_dicom(tmp_path: Path) -> Callable[..., Path]:
    """Writes a computed radiograph: `write_dicom("a.dcm", pixels, PatientID="7")`; see `make_dicom`."""

    def write(name: str, pixels: NDArray[Any], **elements: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_dicom(pixels, **elements))
        return path

    return write


@pytest.fixture(scope="session")
def dicom_bytes() -> Callable[..., bytes]:
    return make_dicom


def make_dicom(
    pixels: NDArray[Any],
    *,
    syntax: str = "1.2.840.10008.1.2.1",
    preamble: bool = True,
    frames: Sequence[bytes] = (),
    **elements: Any,
) -> bytes:
    """A CR of pixels (H, W), (H, W, 3) or (N, H, W), stored uncompressed, or as the compressed `frames` given.

    `elements` add to what is there by default, or take its place; one that is None is left out.
    """
    pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID, generate_uid

    colour = pixels.ndim > 2 and pixels.shape[-1] == 3
    ds = pydicom.Dataset()
    defaults = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1",
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": "1.2.3.4",
        "SeriesInstanceUID": "1.2.3.4.5",
        "Modality": "CR",
        "PatientID": "7",
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "Rows": pixels.shape[-3 if colour else -2],
        "Columns": pixels.shape[-2 if colour else -1],
        "BitsAllocated": 8 * pixels.dtype.itemsize,
        "BitsStored": 8 * pixels.dtype.itemsize,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
    }
    if colour:
        defaults["PlanarConfiguration"] = 0
    if pixels.ndim == 3 + colour:
        defaults["NumberOfFrames"] = len(pixels)
    for keyword, value in (defaults | elements).items():
        if value is not None:
            setattr(ds, keyword, value)
    ds.HighBit = elements.get("HighBit", ds.BitsStored - 1)
    implicit, little = syntax == "1.2.840.10008.1.2", syntax != "1.2.840.10008.1.2.2"
    data = pixels.astype(pixels.dtype.newbyteorder("<" if little else ">")).tobytes()
    ds.PixelData = encapsulate(list(frames)) if frames else data + bytes(len(data) % 2)
    ds["PixelData"].VR = "OB" if frames or pixels.dtype.itemsize == 1 else "OW"
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds.file_meta.MediaStorageSOPClassUID = defaults["SOPClassUID"]
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", "1.2.3")
    file = io.BytesIO()
    if syntax.startswith("1.2.3"):
        pydicom.dcmwrite(file, ds, implicit_vr=False, little_endian=True)
    elif preamble:
        pydicom.dcmwrite(file, ds, enforce_file_format=True)
    else:
        pydicom.dcmwrite(file, _without_meta(ds), implicit_vr=implicit, little_endian=little)
    return file.getvalue()


def _without_meta(ds: Any) -> Any:
    del ds.file_meta
    return ds


@pytest.fixture(autouse=True, scope="session")
def _own_config_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or makes the site key of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.delenv("MURA_SEARCH_SITE_KEY_FILE", raising=False)
        yield
