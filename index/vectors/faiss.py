"""Searching vectors with FAISS, exactly or by an approximation that was measured. The only file that imports faiss."""

import math
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexFailure, MissingExtra
from index.vectors.base import Demand

try:
    import faiss as _faiss
except ImportError as error:
    raise MissingExtra("faiss", "cpu") from error
except RuntimeError as error:  # faiss-gpu without the CUDA libraries that it loads; its message names them
    raise IndexFailure(f"FAISS cannot be used: {error}") from error

__all__ = ["FaissStore"]

faiss: Any = _faiss  # its type stubs leave out what its Python wrappers add

Found = tuple[NDArray[np.float32], NDArray[np.int64]]

AT = 10  # nearest vectors whose recall is measured
SAMPLE = 256  # vectors of the index that are the queries of this measurement
_FETCHED = 5 * AT + 16  # about the number that a search for studies asks for
_FEW = 64  # excluded vectors: up to here asking for as many more is faster than a mask
_GPU_AFTER = 8  # searches: copying the vectors to a GPU takes longer than a few searches
_GPU_MOST = 2048  # vectors that FAISS's search on a GPU gives at most
_ALWAYS_EXACT = 16 << 20  # bytes of vectors: up to here exact search takes a few milliseconds anywhere


class FaissStore:
    """Vectors (N, D), and a FAISS index that approximates their search, or none; a `VectorStore`."""

    def __init__(
        self,
        vectors: NDArray[np.float32],
        approximation: NDArray[np.uint8] | None = None,
        measured: dict[str, Any] | None = None,
    ) -> None:
        """approximation, measured: the bytes, not copied, and the measurements that `approximate` gave."""
        self._vectors = vectors
        self._measured = measured or {}
        self._index: Any = None
        self._gpu: Any = None
        self._asked = 0  # searches that a GPU could have done
        self._refused = False  # whether a GPU failed
        self._turn = threading.Lock()  # a GPU's index serves one thread at a time
        if approximation is not None and len(approximation):
            reader = faiss.ZeroCopyIOReader(faiss.swig_ptr(approximation), approximation.size)
            self._index = faiss.read_index(reader, faiss.IO_FLAG_MMAP_IFC)
            self._bytes = approximation  # the index points into them
            self._effort = int(self._measured["effort"])

    @property
    def exact(self) -> bool:
        return self._index is None

    @property
    def slack(self) -> float:
        # Any order of summation errs by at most D u sum|x_i y_i| (Higham 2002, section 3.1), u = 2^-24, and the sum
        # is at most 1 for unit vectors; doubled, since rows are of unit length only to within rounding.
        return float((self._vectors.shape[1] + 8) * 2.0**-23)

    def search(self, queries: NDArray[np.float32], count: int, allowed: NDArray[np.bool_] | None) -> Found:
        N = len(self._vectors)
        total = N if allowed is None else int(np.count_nonzero(allowed))
        if allowed is not None and N - total <= _FEW:  # asking for a few more is faster than a mask
            return _without(self.search(queries, count + N - total, None), allowed, count)
        selector = None if allowed is None else faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        if self._index is not None:
            # If few are allowed, or many asked for, the search has to visit as many times more.
            effort = self._effort * max(N / max(total, 1), count / _FETCHED)
            if count < total and effort < _all_effort(self._index, N):
                return _approximate_search(self._index, queries, count, math.ceil(effort), selector)
        elif selector is None and count <= _GPU_MOST and self._vectors.nbytes > _ALWAYS_EXACT:
            result = self._gpu_search(queries, count)
            if result:
                return result
        return _exact_search(self._vectors, queries, count, selector)

    def _gpu_search(self, queries: NDArray[np.float32], count: int) -> Found | None:
        """Search on a GPU, with faiss-gpu and after `_GPU_AFTER` searches; None without a GPU, or if it fails.

        A GPU rounds similarities differently, within `slack`, so the ranking finds the same studies.
        """
        if self._refused or not faiss.get_num_gpus():
            return None
        with self._turn:
            self._asked += 1
            if self._asked <= _GPU_AFTER:
                return None
            try:
                if self._gpu is None:
                    self._resources = faiss.StandardGpuResources()
                    index = faiss.GpuIndexFlatIP(self._resources, self._vectors.shape[1])
                    index.add(self._vectors)
                    self._gpu = index
                similarities, positions = self._gpu.search(queries, count)
            except (RuntimeError, MemoryError):  # too small, in use, or of a kind that FAISS was not built for
                self._refused, self._gpu = True, None
                return None
        return similarities, positions

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        vectors: NDArray[np.float32] = self._vectors.take(positions, axis=0)
        return vectors

    def describe(self) -> dict[str, object]:
        N, D = self._vectors.shape
        kind = self._measured.get("kind", "flat")
        measured = {name: value for name, value in self._measured.items() if name != "kind"}
        return {"kind": f"faiss-{kind}", "dimension": D, "vectors": N, "exact": self.exact, **measured}

    @staticmethod
    def approximate(vectors: NDArray[np.float32], demand: Demand) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """What to search (N, D) vectors with: the bytes of a FAISS index, empty for exact search, and its measurements.

        Measured on `SAMPLE` of the vectors themselves, each searched for among the others: "recall" at 10, "latency"
        and "exact_latency" in milliseconds, "effort" (lists probed, or HNSW's ef). Exact search is taken where it is
        fast and small enough. Otherwise the first of an inverted file of bytes, HNSW, and inverted files of product
        codes that reaches the demand; where none does, the one of the highest recall among those that are small enough,
        and where none is, the smallest. "bytes" is what it takes.
        """
        N, D = vectors.shape
        fits = demand.memory is None or demand.memory >= 4 * D * N
        if fits and vectors.nbytes <= _ALWAYS_EXACT:
            return np.zeros(0, np.uint8), {}
        sample = np.random.default_rng(0).choice(N, min(SAMPLE, N), replace=False)
        exact_latency = _latency(lambda query: _exact_search(vectors, query, _FETCHED, None), vectors[sample[:16]])
        if fits and exact_latency <= demand.latency:
            return np.zeros(0, np.uint8), {}
        best: tuple[NDArray[np.uint8], dict[str, Any]] | None = None
        nearest = _nearest(vectors, sample)
        for kind, index in _candidates(vectors, demand):
            effort, recall, latency = _tuned(index, vectors, sample, nearest, demand.recall)
            measured = {"kind": kind, "effort": effort, "recall": round(recall, 4), "recall_at": AT}
            measured |= {"latency": round(latency, 4), "exact_latency": round(exact_latency, 4), "sample": len(sample)}
            reached = recall >= demand.recall and latency <= demand.latency
            if reached or best is None or recall > best[1]["recall"]:
                data = faiss.serialize_index(index)
                best = data, measured | {"bytes": len(data)}
            if reached:
                break
        if best is None:
            raise AssertionError  # there is always a candidate
        return best


def _without(result: Found, allowed: NDArray[np.bool_], count: int) -> Found:
    """The first `count` allowed candidates; at least as many are allowed."""
    similarities, positions = result
    if len(positions) == 1:
        kept = np.flatnonzero(allowed[positions[0]])[:count]
        return similarities[:, kept], positions[:, kept]
    order = np.argsort(~allowed[positions], axis=1, kind="stable")[:, :count]
    return np.take_along_axis(similarities, order, axis=1), np.take_along_axis(positions, order, axis=1)


def _exact_search(vectors: NDArray[np.float32], queries: NDArray[np.float32], count: int, selector: Any) -> Found:
    (Q, D), N = queries.shape, len(vectors)
    similarities, positions = np.empty((Q, count), np.float32), np.empty((Q, count), np.int64)
    pointers = map(faiss.swig_ptr, (queries, vectors))
    results = map(faiss.swig_ptr, (similarities, positions))
    faiss.knn_inner_product(*pointers, D, Q, N, count, *results, selector)
    return similarities, positions


def _approximate_search(index: Any, queries: NDArray[np.float32], count: int, effort: int, selector: Any) -> Found:
    if isinstance(index, faiss.IndexHNSW):
        parameters = faiss.SearchParametersHNSW(sel=selector, efSearch=max(effort, count))
    else:
        parameters = faiss.SearchParametersIVF(sel=selector, nprobe=effort)
    similarities, positions = index.search(queries, count, params=parameters)
    return similarities, positions


def _all_effort(index: Any, N: int) -> float:
    """The effort from which on exact search is as fast."""
    return N / 8 if isinstance(index, faiss.IndexHNSW) else index.nlist / 2


def _candidates(vectors: NDArray[np.float32], demand: Demand) -> Iterator[tuple[str, Any]]:
    """Indexes over the vectors that are small enough, or the smallest one; most promising first, built lazily."""
    N, D = vectors.shape
    lists = max(1, min(2 ** round(math.log2(2 * math.sqrt(N))), N // 39))
    links = 32
    sizes = {"ivf-sq8": D + 8, "hnsw-sq8": D + 8 * links + 4}  # bytes a vector
    sizes |= {f"ivf-pq{D // part}": D // part + 8 for part in (2, 4, 8) if D % part == 0 and N >= 39 * 256}
    room = math.inf if demand.memory is None else demand.memory / N
    fitting = {kind: size for kind, size in sizes.items() if size <= room}
    chosen = [kind for kind in fitting if not (kind.startswith("ivf-pq") and "ivf-sq8" in fitting)]
    for kind in chosen or [min(sizes, key=lambda kind: sizes[kind])]:
        if kind == "ivf-sq8":
            quantizer = faiss.ScalarQuantizer.QT_8bit
            yield kind, _inverted(faiss.IndexIVFScalarQuantizer, vectors, lists, quantizer)
        elif kind == "hnsw-sq8":
            graph = faiss.IndexHNSWSQ(D, faiss.ScalarQuantizer.QT_8bit, links, faiss.METRIC_INNER_PRODUCT)
            graph.train(vectors[:100_000])
            graph.add(vectors)
            yield kind, graph
        else:
            yield kind, _inverted(faiss.IndexIVFPQ, vectors, lists, sizes[kind] - 8, 8)


def _inverted(kind: Any, vectors: NDArray[np.float32], lists: int, *codes: Any) -> Any:
    """An inverted file, trained on a sample and filled piece by piece, so that no second copy is needed."""
    N, D = vectors.shape
    coarse = faiss.IndexFlatIP(D)
    index = kind(coarse, D, lists, *codes, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = 8
    if isinstance(index, faiss.IndexIVFPQ):
        index.pq.cp.niter = 8
    size = min(N, max(40 * lists, 39 * 256))
    index.train(vectors[np.sort(np.random.default_rng(0).choice(N, size, replace=False))])
    for start in range(0, N, 65_536):
        index.add(vectors[start : start + 65_536])
    coarse.this.disown()
    index.own_fields = True
    return index


def _nearest(vectors: NDArray[np.float32], sample: NDArray[np.int64]) -> NDArray[np.float32]:
    """(S,) for each vector in the sample the similarity of its tenth nearest other vector."""
    similarities, _ = _exact_search(vectors, vectors[sample], min(AT + 1, len(vectors)), None)
    return similarities[:, -1]  # the first is the vector itself, or an equal one


def _tuned(
    index: Any, vectors: NDArray[np.float32], sample: NDArray[np.int64], nearest: NDArray[np.float32], recall: float
) -> tuple[int, float, float]:
    """The least effort, found by doubling, that reaches the recall; its recall; its latency in milliseconds."""
    N, D = vectors.shape
    count = min(_FETCHED, N)
    effort, reached = 1, 0.0
    while True:
        hits = 0
        for position, limit in zip(sample, nearest, strict=True):
            query = vectors[position : position + 1]
            positions = _approximate_search(index, query, count, effort, None)[1][0]
            similarities = vectors[positions[(positions >= 0) & (positions != position)]] @ query[0]
            hits += min(AT, int(np.count_nonzero(similarities >= limit - (D + 8) * 2.0**-22)))
        reached = hits / (AT * len(sample))
        if reached >= recall or 4 * effort > _all_effort(index, N):
            break
        effort *= 2
    latency = _latency(lambda query: _approximate_search(index, query, count, effort, None), vectors[sample])
    return effort, reached, latency


def _latency(search: Any, queries: NDArray[np.float32]) -> float:
    """The median latency of a search for one query, in milliseconds."""
    samples = []
    for query in queries:
        started = time.perf_counter()
        search(query[None])
        samples.append(time.perf_counter() - started)
    return float(1000 * np.median(samples))
