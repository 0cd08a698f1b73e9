"""A model bundle: the folder with encoder, head and everything needed to use them.

model.json              schema, name, backbone, dimension, preprocessing, test-time augmentation, decision rules,
                        provenance, SHA-256 of the files
encoder.onnx            (B, 3, S, S) float32 -> feature map (B, C, h, w)
head.safetensors        see `retrieval.encoding.head`
seen.safetensors        64 bits of the SHA-256 of each training file, and a hash of 512 bits of each training picture
                        (`encoding.picture_hash`; older bundles have none), so that a later evaluation on the same
                        radiographs can be refused; no patient can be recognised by them
appearance.safetensors  see `retrieval.encoding.probes`; a bundle may lack it
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.atomic import write_whole
from index.case import Case
from retrieval.encoding.harmonisation import Harmonisation
from retrieval.encoding.picture_hash import BYTES, Hashes, picture_hashes, same_picture
from retrieval.encoding.probes import Appearance
from retrieval.errors import BundleError
from retrieval.images.preprocessing import Preprocessing
from retrieval.wording import reason_text

__all__ = ["APPEARANCE", "BUNDLED", "HARMONISATION", "SCHEMA", "Bundle", "digest_number", "write_bundle"]

SCHEMA = "mura-search/model/1"
BUNDLED = Path(__file__).parents[1] / "model"
FILES = ("encoder.onnx", "head.safetensors", "seen.safetensors")
APPEARANCE = "appearance.safetensors"
HARMONISATION = "harmonisation.safetensors"
OPTIONAL = APPEARANCE, HARMONISATION
TEST_TIME = ("", "mirror")
_LONGEST_NAME, _MOST_DIMENSIONS = 1000, 65_536


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle, its files in memory. `sha256` is that of model.json, which holds those of the other files.

    `test_time` is "mirror" where a radiograph and its mirror image are encoded, and both are averaged; else "".
    """

    folder: Path
    name: str
    backbone: str
    dimension: int
    preprocessing: Preprocessing
    rules: Mapping[str, Any] | None
    provenance: Mapping[str, Any]
    sha256: str
    files: Mapping[str, bytes] = field(repr=False)
    test_time: str = ""

    @property
    def synthetic(self) -> bool:
        """Whether any training radiograph was synthetic."""
        return bool(self.provenance.get("synthetic", False))

    @classmethod
    def open(cls, folder: Path) -> "Bundle":
        """The bundle in `folder`, with every file checked. Raises BundleError."""
        try:
            manifest = (folder / "model.json").read_bytes()
        except OSError as error:
            raise BundleError(
                f"no model bundle at {folder}: model.json cannot be read; give --model a bundle's folder"
            ) from error
        try:
            about = json.loads(manifest, parse_constant=_refuse_constant)
            _check_version(folder, about)
            preprocessing = Preprocessing.from_dict(about["preprocessing"])
            _check_manifest(about)
            names = (*FILES, *(name for name in OPTIONAL if name in about["files"]))
            files = {name: _read_checked(folder / name, about["files"][name]) for name in names}
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else reason_text(error)
            raise BundleError(
                f"the model at {folder} is damaged: model.json cannot be read ({reason}); copy or train it again"
            ) from error
        try:
            fault = network_fault(files["encoder.onnx"])
        except ValueError as error:
            raise BundleError(f"the model at {folder} cannot be run: {error}; copy or train it again") from error
        if fault:
            raise BundleError(f"the model at {folder} cannot be used: its encoder.onnx {fault}")
        return cls(
            folder, about["name"], about["backbone"], about["dimension"], preprocessing, about["rules"],
            about["provenance"], hashlib.sha256(manifest).hexdigest(), files, about.get("test_time", ""),
        )  # fmt: skip

    def appearance(self) -> Appearance | None:
        """The probes of body part, polarity and turn, None where the bundle has none. Raises BundleError."""
        data = self.files.get(APPEARANCE)
        return None if data is None else Appearance.parse(data, self.dimension)

    def harmonisation(self) -> Harmonisation | None:
        """What takes back other processing, None where the bundle has nothing for it. Raises BundleError."""
        data = self.files.get(HARMONISATION)
        return None if data is None else Harmonisation.parse(data, self.dimension)

    def seen(self) -> frozenset[int]:
        """The digest numbers of the files that encoder or head was trained on. Raises BundleError."""
        return frozenset(self._seen()[0].tolist())

    def seen_hashes(self) -> Hashes:
        """The hashes (N, 64) of the pictures that encoder or head was trained on; none in older bundles."""
        return self._seen()[1]

    def seen_in(self, cases: Sequence[Case], thumbnails: Iterable[bytes]) -> frozenset[int]:
        """`seen`, and the digest numbers of the cases whose thumbnails show the same radiographs in other bytes."""
        digests, hashes = self._seen()
        known = frozenset(digests.tolist())
        if not len(hashes):
            return known
        same = zip(cases, same_picture(picture_hashes(thumbnails), hashes), strict=True)
        return known | {digest_number(case.digest) for case, seen in same if seen and case.digest}

    def _seen(self) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            tensors = load(self.files["seen.safetensors"])
            digests, hashes = tensors["digests"], tensors.get("hashes", np.zeros((0, BYTES), np.uint8))
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise self._damaged(f"seen.safetensors cannot be read ({reason_text(error)})") from error
        shapes = digests.ndim == 1 and hashes.ndim == 2 and hashes.shape[1] == BYTES
        if not shapes or digests.dtype != np.uint64 or hashes.dtype != np.uint8:
            raise self._damaged("seen.safetensors holds something other than digests and hashes")
        return digests, hashes

    def _damaged(self, reason: str) -> BundleError:
        return BundleError(f"the model at {self.folder} is damaged: {reason}; copy or train it again")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number in JSON")


def _check_version(folder: Path, about: Mapping[str, Any]) -> None:
    """Raise BundleError for a model of another version."""
    if about["schema"] != SCHEMA:
        raise BundleError(
            f"the model at {folder} has schema {reason_text(about['schema'])}, this version reads {SCHEMA}; "
            "train it again, or use the version that wrote it"
        )
    if about.get("test_time", "") not in TEST_TIME:
        raise BundleError(
            f"the model at {folder} asks for test-time augmentation {reason_text(about['test_time'])!r}, which this "
            "version does not know; use the version that wrote it"
        )


def _check_manifest(about: Mapping[str, Any]) -> None:
    """Raise ValueError for a value in model.json that has another type or range. `Rules` checks the decision rules."""
    for name in ("name", "backbone"):
        text = about[name]
        if not (isinstance(text, str) and text.isprintable() and len(text) <= _LONGEST_NAME):
            raise ValueError(f"{name} must be printable text of at most {_LONGEST_NAME} characters")
    if type(about["dimension"]) is not int or not 1 <= about["dimension"] <= _MOST_DIMENSIONS:
        raise ValueError(f"dimension must be a whole number from 1 to {_MOST_DIMENSIONS}")
    for name, kinds in (("provenance", (dict,)), ("files", (dict,)), ("rules", (dict, type(None)))):
        if not isinstance(about[name], kinds):
            raise ValueError(f"{name} must be an object of named values")


# What an encoder must not have, by the kind of message and the number of the field in onnx.proto.
_FAULTS = {
    ("tensor", 13): "keeps weights in another file, which no checksum covers; export it again as one file",
    ("attribute", 6): "has loops or branches, which may never end; export it again without them",
    ("attribute", 11): "has loops or branches, which may never end; export it again without them",
    ("model", 25): "has functions of its own, which may call each other without end; export it again without them",
}
# The fields that lead to such a field.
_INNER: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}


def network_fault(model: bytes) -> str:
    """Why an ONNX model is no encoder, which completes "encoder.onnx ..."; "" if nothing is found.

    Loop, Scan and If show in attributes that are graphs. Raises ValueError where the model is not protobuf.
    """
    return next(_faults(memoryview(model), "model"), "")


def _faults(message: memoryview, kind: str) -> Iterator[str]:
    inner = _INNER[kind]
    for number, content in _protobuf_fields(message):
        if (kind, number) in _FAULTS:
            yield _FAULTS[kind, number]
        if number in inner:
            yield from _faults(content, inner[number])


def _protobuf_fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The number and content of each field of a message; the content is empty but for length-delimited fields."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128 or shift > 63:
                return value

    try:
        while at < len(message):
            number, wire = divmod(varint(), 8)
            size = {0: 0, 1: 8, 2: 0, 5: 4}[wire]
            if wire == 0:
                varint()
            elif wire == 2:
                size = varint()
            content = message[at : at + size]
            at += size
            yield number, content if wire == 2 else message[:0]
    except (IndexError, KeyError) as error:
        raise ValueError("encoder.onnx cannot be read") from error


def _read_checked(path: Path, sha256: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"the model at {path.parent} is incomplete: {path.name} cannot be read; copy or train it again"
        ) from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise BundleError(
            f"the model at {path.parent} is damaged: {path.name} is not what was written; copy or train it again"
        )
    return data


def digest_number(digest: str) -> int:
    """The first 64 bits of a SHA-256 in hex, as bundles store them."""
    return int(digest[:16], 16)


def write_bundle(
    folder: Path,
    *,
    about: Mapping[str, Any],
    preprocessing: Preprocessing,
    rules: Mapping[str, Any] | None,
    seen: Iterable[str],
    hashes: Hashes | None = None,
) -> None:
    """Complete a folder that holds encoder.onnx, head.safetensors and perhaps some of OPTIONAL.

    It gets seen.safetensors, and model.json last. `about` gives name, backbone, dimension, provenance and, if it is not
    "", test_time; `seen` the SHA-256 in hex of every training file; `hashes` (N, 64) those of their pictures.
    """
    from safetensors.numpy import save

    digests: NDArray[np.uint64] = np.array(sorted({digest_number(d) for d in seen}), np.uint64)
    pictures = {} if hashes is None else {"hashes": np.unique(hashes, axis=0)}  # in an order that says nothing
    (folder / "seen.safetensors").write_bytes(save({"digests": digests, **pictures}))
    files = (*FILES, *(name for name in OPTIONAL if (folder / name).exists()))
    manifest = {
        "schema": SCHEMA,
        **about,
        "preprocessing": preprocessing.to_dict(),
        "rules": rules,
        "files": {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files},
    }
    write_whole(folder / "model.json", f"{json.dumps(manifest, indent=1)}\n".encode())
