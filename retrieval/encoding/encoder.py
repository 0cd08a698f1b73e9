"""Radiographs in, embeddings and classifier logits out. On the query path, only this file imports ONNX Runtime."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.encoding.bundle import Bundle
from retrieval.encoding.head import Head
from retrieval.errors import BundleError, MissingExtra
from retrieval.images.measures import Measures, measure
from retrieval.images.preprocessing import Picture, normalise, preprocess
from retrieval.wording import reason_text

__all__ = ["Encoded", "Encoder"]

_AT_ONCE = 16  # pictures


@dataclass(frozen=True, slots=True)
class Encoded:
    """N encoded radiographs: embeddings (N, D) float32 of unit length, uncalibrated classifier logits (N,)."""

    embeddings: NDArray[np.float32]
    logits: NDArray[np.float32]

    def row(self, number: int) -> "Encoded":
        """One of the radiographs alone."""
        return Encoded(self.embeddings[number : number + 1], self.logits[number : number + 1])

    def mean(self) -> NDArray[np.float32]:
        """The mean embedding (D,), of unit length."""
        mean = self.embeddings.mean(0)
        return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), np.float32)


class Encoder:
    """A model bundle in use. Thread-safe: several threads may encode at once."""

    def __init__(self, bundle: Bundle, threads: int = 0) -> None:
        """`threads` for one encoding; 0 means one for each physical core."""
        try:
            import onnxruntime as ort
            from onnxruntime.capi import onnxruntime_pybind11_state as state
        except ImportError as error:
            raise MissingExtra("onnxruntime", "cpu") from error
        self.bundle = bundle
        self.head = Head.parse(bundle.files["head.safetensors"])
        if self.head.dimension != bundle.dimension:
            raise BundleError(
                f"the model at {bundle.folder} is damaged: its head and model.json disagree; copy or train it again"
            )
        self.appearance = bundle.appearance()
        self.harmonisation = bundle.harmonisation()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # errors are raised as well
        # A thread that waits sleeps, so that the processor is free for the threads that read the next radiographs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        offered = ort.get_available_providers()
        providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in offered]
        self._failures: tuple[type[Exception], ...] = (RuntimeError, ValueError, *_errors_of(state))
        try:
            self._session: Any = ort.InferenceSession(bundle.files["encoder.onnx"], options, providers=providers)
        except self._failures as error:
            raise self._unusable(error) from error
        self._check_network()
        self._input = self._session.get_inputs()[0].name

    def _check_network(self) -> None:
        """Raise BundleError if the network does not take and give what model.json and head say."""
        size, channels = self.bundle.preprocessing.size, self.head.features
        for kind, ends, expected in (
            ("input", self._session.get_inputs(), (3, size, size)),
            ("output", self._session.get_outputs(), (channels, None, None)),
        ):
            fits = len(ends) == 1 and ends[0].type == "tensor(float)" and len(ends[0].shape) == 4
            # A size that the network leaves open is a name or None.
            sizes = zip(ends[0].shape[1:], expected, strict=True) if fits else ()
            if not fits or any(given != wanted for given, wanted in sizes if isinstance(given, int) and wanted):
                shape = ", ".join("any" if side is None else str(side) for side in (None, *expected))
                raise self._unusable(f"its network needs one {kind} of ({shape}) float numbers")

    def _unusable(self, reason: object) -> BundleError:
        return BundleError(
            f"the model at {self.bundle.folder} cannot be run: {reason_text(reason)}; copy or train it again"
        )

    @classmethod
    def open(cls, folder: Path, threads: int = 0) -> "Encoder":
        """The encoder of the bundle in `folder`. Raises BundleError, MissingExtra."""
        return cls(Bundle.open(folder), threads)

    def with_head(self, head: Head) -> "Encoder":
        """The same network with another head."""
        copied = copy.copy(self)
        copied.head = head
        return copied

    def prepare(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A radiograph as read, prepared for the encoder: (S, S, 3)."""
        return preprocess(pixels, self.bundle.preprocessing)

    def maps(self, pictures: Sequence[Picture]) -> NDArray[np.float32]:
        """Feature maps (B, C, h, w) of prepared pictures. Raises BundleError where the network fails."""
        batch = normalise(pictures, self.bundle.preprocessing)
        try:
            maps = np.asarray(self._session.run(None, {self._input: batch})[0], np.float32)
        except self._failures as error:
            raise self._unusable(error) from error
        if maps.ndim != 4 or maps.shape[:2] != (len(batch), self.head.features) or not maps.size:
            raise self._unusable(f"its network gives numbers of shape {maps.shape}")
        return maps

    def views(self, pictures: Sequence[Picture]) -> list[NDArray[np.float32]]:
        """The feature maps (B, C, h, w) of B prepared pictures; if the bundle says "mirror", of mirror images, too."""
        views = [self._all_maps(pictures)]
        if self.bundle.test_time == "mirror":
            views.append(self._all_maps([picture[:, ::-1] for picture in pictures]))
        return views

    def _all_maps(self, pictures: Sequence[Picture]) -> NDArray[np.float32]:
        """`maps`, a few at a time, which bounds the memory."""
        starts = range(0, max(1, len(pictures)), _AT_ONCE)
        parts = [self.maps(pictures[start : start + _AT_ONCE]) for start in starts]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def pool(self, views: Sequence[NDArray[np.float32]]) -> Encoded:
        """Embeddings (B, D) and logits (B,) from the result of `views`: averages over the views, of unit length."""
        with np.errstate(all="ignore"):  # who uses the numbers looks whether they are finite
            pooled = [self.head.apply(maps) for maps in views]
        if len(pooled) == 1:
            return Encoded(pooled[0].embeddings, pooled[0].logits)
        total = pooled[0].embeddings + pooled[1].embeddings
        lengths = np.maximum(np.linalg.norm(total, axis=1, keepdims=True), np.float32(1e-12))
        return Encoded(total / lengths, np.float32(0.5) * (pooled[0].logits + pooled[1].logits))

    def encode_prepared(self, pictures: Sequence[NDArray[np.uint8]]) -> Encoded:
        """Embeddings (B, D) and logits (B,) of B prepared pictures; the caller chooses the batch size."""
        return self.pool(self.views(pictures))

    def measure(self, pixels: NDArray[np.uint8]) -> Measures:
        """The plain measures of a radiograph, (H, W) or (H, W, 3) BGR, as read, at the size that the encoder sees."""
        return measure(pixels, self.bundle.preprocessing.size)

    def harmonised(self, encoded: Encoded, measures: Sequence[Measures]) -> Encoded:
        """Encoded radiographs of these measures, with logits as if they had been processed as in training."""
        if self.harmonisation is None:
            return encoded
        embeddings = self.harmonisation.apply(encoded.embeddings, measures)
        shift = self.head.classify(embeddings) - self.head.classify(encoded.embeddings)
        return Encoded(encoded.embeddings, encoded.logits + shift)

    def encode(self, radiographs: Sequence[NDArray[np.uint8]]) -> Encoded:
        """Embeddings and harmonised logits of radiographs as read, (H, W) grey or (H, W, 3) BGR each."""
        encoded = self.encode_prepared([self.prepare(pixels) for pixels in radiographs])
        return self.harmonised(encoded, [self.measure(pixels) for pixels in radiographs])


def _errors_of(state: Any) -> tuple[type[Exception], ...]:
    """ONNX Runtime's own errors, which have no common base."""
    return tuple(kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
