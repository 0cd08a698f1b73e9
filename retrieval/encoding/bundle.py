"""A model bundle: the folder with encoder, head and everything needed to use them.

model.json              schema, name, backbone, dimension, preprocessing, test-time augmentation, decision rules,
                        provenance, SHA-256 of the files
encoder.onnx            (B, 3, S, S) float32 -> feature map (B, C, h, w)
head.safetensors        see `retrieval.encoding.head`
seen.safetensors        64 bits of the SHA-256 of each training file, so that a later evaluation on the same radiographs
                        can be refused; nothing about a patient can be read from it
appearance.safetensors  see `retrieval.encoding.probes`; a bundle may lack it
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.atomic import write_whole
from retrieval.encoding.probes import Appearance
from retrieval.errors import BundleError
from retrieval.images.preprocessing import Preprocessing

__all__ = ["APPEARANCE", "BUNDLED", "SCHEMA", "Bundle", "digest_number", "write_bundle"]

SCHEMA = "mura-search/model/1"
BUNDLED = Path(__file__).parents[1] / "model"
FILES = ("encoder.onnx", "head.safetensors", "seen.safetensors")
APPEARANCE = "appearance.safetensors"
TEST_TIME = ("", "mirror")


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
            about = json.loads(manifest)
            if about["schema"] != SCHEMA:
                raise BundleError(
                    f"the model at {folder} has schema {about['schema']}, this version reads {SCHEMA}; "
                    "train it again, or use the version that wrote it"
                )
            if about.get("test_time", "") not in TEST_TIME:
                raise BundleError(
                    f"the model at {folder} asks for test-time augmentation {about['test_time']!r}, which this version "
                    "does not know; use the version that wrote it"
                )
            how = Preprocessing.from_dict(about["preprocessing"])
            bundle = cls(
                folder, str(about["name"]), str(about["backbone"]), int(about["dimension"]), how,
                about["rules"], about["provenance"], hashlib.sha256(manifest).hexdigest(),
                {name: _read_checked(folder / name, about["files"][name]) for name in _names(about["files"])},
                about.get("test_time", ""),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(
                f"the model at {folder} is damaged: model.json does not read ({error!r}); copy or train it again"
            ) from error
        return bundle

    def appearance(self) -> Appearance | None:
        """The probes of body part, polarity and turn, None where the bundle has none. Raises BundleError."""
        data = self.files.get(APPEARANCE)
        return None if data is None else Appearance.parse(data, self.dimension)

    def seen(self) -> frozenset[int]:
        """The digest numbers of the files that encoder or head was trained on."""
        from safetensors.numpy import load

        return frozenset(load(self.files["seen.safetensors"])["digests"].tolist())


def _names(files: Collection[str]) -> tuple[str, ...]:
    return (*FILES, APPEARANCE) if APPEARANCE in files else FILES


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
) -> None:
    """Complete a folder that holds encoder.onnx, head.safetensors and perhaps appearance.safetensors.

    It gets seen.safetensors, and model.json last. `about` gives name, backbone, dimension, provenance and, if it is not
    "", test_time; `seen` the SHA-256 in hex of every training file.
    """
    from safetensors.numpy import save

    digests: NDArray[np.uint64] = np.array(sorted({digest_number(d) for d in seen}), np.uint64)
    (folder / "seen.safetensors").write_bytes(save({"digests": digests}))
    present = [file.name for file in folder.iterdir()]
    manifest = {
        "schema": SCHEMA,
        **about,
        "preprocessing": preprocessing.to_dict(),
        "rules": rules,
        "files": {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in _names(present)},
    }
    write_whole(folder / "model.json", f"{json.dumps(manifest, indent=1)}\n".encode())
