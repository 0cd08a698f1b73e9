"""Vectors beyond one machine, in a Milvus collection. The only file that imports pymilvus.

A collection holds what cases.sqlite says. Each case is an entity: its row in cases.sqlite as primary key, the fields of
its record, so that Milvus can filter by them, and its unit vector. All of it can be made again from cases.sqlite.
"""

import contextlib
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from index.case import FIELDS, TEXTS, Case, Where
from index.closing import Closing
from index.errors import (
    IndexBusy,
    IndexDamaged,
    IndexFailure,
    IndexMissing,
    IndexSchema,
    IndexUnreachable,
    MissingExtra,
)
from index.milvus.filters import LONGEST, storable
from index.milvus.settings import MilvusSettings
from index.milvus.study_search import TOP, Page, page_studies
from index.milvus.transient_errors import passes, reason_of
from index.vectors.base import require_unit_rows
from index.vectors.study_search import Neighbour

if TYPE_CHECKING:
    import tenacity

__all__ = ["MilvusSettings", "MilvusStore", "retrying"]

T = TypeVar("T")

_ROW, _VECTOR = "row", "vector"
_STORED = FIELDS[: -len(TEXTS)]
_WRITTEN = 1_000  # entities in a request; even with the longest texts they stay below the 64 MB that a server takes
_ASKED = 4_096  # vectors in an answer, well below the limits of a server
_LONG = 600.0  # seconds that flushing, indexing and loading may take
_GROUPING = (2, 4)  # the first version with grouping search; earlier ones ignore that it is asked for
_CONNECTING = 3.0  # seconds of further attempts to connect, few so that a mistyped address is reported soon

_opened: Counter[str] = Counter()  # how many stores of this process are open on each file of Milvus Lite


class MilvusStore(Closing):
    """An open collection. Several threads may use it.

    Every method may raise IndexUnreachable if Milvus does not answer, and IndexFailure if it refuses.
    """

    def __init__(self, client: Any, settings: MilvusSettings, dimension: int, search_params: Mapping[str, Any]) -> None:
        """`open` makes one."""
        self._client = client
        self._settings = settings
        self._dimension = dimension
        self._search_params = dict(search_params)
        self._kind = "FLAT"
        self._groups = False  # whether searches ask for one case a study
        self._closed = False

    @classmethod
    def open(
        cls,
        settings: MilvusSettings,
        dimension: int,
        *,
        create: bool = False,
        index_params: Mapping[str, object] | None = None,
        search_params: Mapping[str, Any] | None = None,
    ) -> "MilvusStore":
        """Open a collection of vectors of this dimension; `create` makes one if there is none.

        index_params: of a new collection, such as {"index_type": "HNSW", "params": {"M": 16, "efConstruction": 200}};
        FLAT, which is exact, by default. search_params: such as {"nprobe": 32}; HNSW's "ef" is raised to the number of
        cases asked for. Raises MissingExtra without pymilvus, IndexMissing if there is no collection, IndexSchema if
        its fields are different.
        """
        if settings.local and not create and not Path(settings.uri).exists():
            raise IndexMissing(f"no Milvus collection {settings}; write the index to it first")
        store = cls(_connect(settings), settings, dimension, search_params or {})
        with contextlib.ExitStack() as stack:
            stack.callback(store.close)
            store._prepare(create, index_params or {"index_type": "FLAT"})
            stack.pop_all()
        return store

    def close(self) -> None:
        """Close the connection. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._client.close()
            _release(self._settings)

    def upsert(self, rows: Sequence[int], cases: Sequence[Case], vectors: NDArray[np.float32]) -> None:
        """Write n cases with their vectors, (n, D) unit rows; a row that is there already is replaced.

        After an error some may be written: call it again. Of a row given twice the last counts. Raises ValueError for
        different lengths and vectors not of length 1, IndexFailure for a text that Milvus cannot hold.
        """
        require_unit_rows(vectors, self._dimension)
        if not len(rows) == len(cases) == len(vectors):
            raise ValueError("every row has one case and one vector")
        last = {row: (case, vector) for row, case, vector in zip(rows, cases, vectors, strict=True)}
        for batch in _batches(list(last), _WRITTEN):
            self._ask("upsert", data=[_entity(row, *last[row]) for row in batch])

    def delete(self, rows: Sequence[int]) -> None:
        """Delete rows; unknown rows are ignored."""
        for batch in _batches([int(row) for row in rows], _ASKED):
            self._ask("delete", ids=batch)
        if self._settings.consistency == "Session":
            self.wait()  # servers as of 2.3.5 report no time of a deletion, which a session needs

    def wait(self) -> None:
        """Return when searches find all earlier writes of all clients, whatever the consistency."""
        self.count()  # asks with strong consistency

    def flush(self) -> None:
        """Return when all writes are in the server's storage; call it once, after the last of many writes."""
        self._ask("flush", timeout=_LONG)

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        where: Where | None = None,
        exclude_patients: Sequence[Collection[str]] | None = None,
        *,
        without: Sequence[int] = (),
    ) -> list[list[Neighbour]]:
        """For each query the k nearest studies, or as many as match: similarity, and row of the study's nearest case.

        queries: (Q, D) unit rows. where, exclude_patients: as for `IndexReader.search`. without: rows that must not be
        found. A similarity is the inner product in double precision, rounded to float32. Most similar first; ties,
        within a study too, by row. With an index other than FLAT, studies may be missed as that index misses vectors.
        If more than 16384 cases tie for the last place, the lowest row among 16384 of them wins. Raises ValueError as
        `IndexReader.search` does.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        require_unit_rows(queries, self._dimension)
        if k < 1:
            raise ValueError(f"k is the number of studies to find, at least 1, not {k}")
        # As for FAISS: what adding up D products in float32, in whatever order, may err by.
        slack = (self._dimension + 8) * 2.0**-23
        barred = f"{_ROW} not in {list(without)}" if without else ""

        def ask(asked: NDArray[np.float32], count: int, expression: str, **options: Any) -> list[Page]:
            return self._page(asked, count, " and ".join(filter(None, (expression, barred))), **options)

        # An exact search cannot use Milvus's grouping: it chooses a study's case by its own rounding. Milvus Lite's
        # grouping gives too few studies if some have many cases.
        groups = partial(ask, group_by_field="study") if self._groups else None
        return page_studies(ask, queries, k, where, exclude_patients, slack=slack, groups=groups)

    def _page(self, queries: NDArray[np.float32], count: int, expression: str, **options: Any) -> list[Page]:
        """For each query the `count` nearest cases that match, or all if fewer match."""
        params = dict(self._search_params)
        if self._kind.startswith("HNSW"):
            params["ef"] = max(int(params.get("ef", 64)), count)
        pages = self._ask(
            "search",
            data=list(queries),
            anns_field=_VECTOR,
            limit=count,
            filter=expression,
            output_fields=["study", _VECTOR],
            search_params={"metric_type": "IP", "params": params},
            consistency_level=self._settings.consistency,
            **options,
        )
        return [
            Page([(hit.id, hit.entity["study"], hit.entity[_VECTOR]) for hit in hits], float(hits[-1].distance))
            if hits
            else Page([], 0.0)
            for hits in pages
        ]

    def rows(self) -> NDArray[np.int64]:
        """The numbers (N,) of all rows held, sorted."""

        def read() -> list[int]:
            pages = self._client.query_iterator(
                self._settings.collection,
                batch_size=TOP,
                output_fields=[_ROW],
                consistency_level="Strong",
                timeout=self._settings.timeout,
            )
            rows: list[int] = []
            try:
                while page := pages.next():
                    rows += [entity[_ROW] for entity in page]
            finally:
                pages.close()
            return rows

        return np.unique(np.array(_ask(read, self._settings), dtype=np.int64))

    def vectors(self, rows: Sequence[int]) -> NDArray[np.float32]:
        """The vectors of the rows, (n, D), as stored. Raises IndexDamaged for an unknown row."""
        vectors = np.empty((len(rows), self._dimension), dtype=np.float32)
        for positions in _batches(range(len(rows)), _ASKED):
            asked = [int(rows[position]) for position in positions]
            entities = self._ask(
                "query", filter=f"{_ROW} in {asked}", output_fields=[_ROW, _VECTOR], consistency_level="Strong"
            )
            held = {entity[_ROW]: entity[_VECTOR] for entity in entities}
            if missing := [row for row in asked if row not in held]:
                raise IndexDamaged(f"{self._settings} lacks row {missing[0]}; write the index to it again")
            vectors[list(positions)] = [held[row] for row in asked]
        return vectors

    def count(self) -> int:
        """How many rows are held."""
        answer = self._ask("query", filter="", output_fields=["count(*)"], consistency_level="Strong")
        return int(answer[0]["count(*)"])

    def describe(self) -> dict[str, object]:
        """For `index info`."""
        return {
            "kind": f"milvus-{self._kind.lower()}",
            "dimension": self._dimension,
            "vectors": self.count(),
            "exact": self._kind == "FLAT",
            "uri": self._settings.uri,
            "collection": self._settings.collection,
            "server": self._version(),
        }

    def drop(self) -> None:
        """Delete the collection. The store can only be closed afterwards."""
        if self._ask("has_collection"):
            self._ask("drop_collection")

    def _prepare(self, create: bool, index_params: Mapping[str, object]) -> None:
        """Find or make the collection and its index, and load them; goes on where an earlier call was killed."""
        if not self._ask("has_collection"):
            if not create:
                raise IndexMissing(f"no Milvus collection {self._settings}; write the index to it first")
            self._ask("create_collection", schema=self._schema(), consistency_level="Strong", timeout=_LONG)
        fields = {entry["name"]: entry["params"].get("dim") for entry in self._ask("describe_collection")["fields"]}
        fits = fields == dict.fromkeys((_ROW, *_STORED)) | {_VECTOR: self._dimension}
        if fits and not self._ask("list_indexes"):
            params = self._client.prepare_index_params(_VECTOR, metric_type="IP", index_name=_VECTOR, **index_params)
            self._ask("create_index", index_params=params, timeout=_LONG)
        index = self._ask("describe_index", index_name=_VECTOR) if fits else None
        if index is None or index["metric_type"] != "IP":
            raise IndexSchema(
                f"{self._settings} was not made by this version for vectors of {self._dimension} numbers; "
                "choose another collection, or drop it and write the index again"
            )
        self._kind = str(index["index_type"])
        if self._kind != "FLAT" and (version := re.search(r"(\d+)\.(\d+)", self._version())):
            self._groups = tuple(map(int, version.groups())) >= _GROUPING
        self._ask("load_collection", timeout=_LONG)
        if self._settings.consistency != "Strong":
            self.wait()

    def _version(self) -> str:
        return str(_ask(self._client.get_server_version, self._settings))

    def _schema(self) -> Any:
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(_ROW, DataType.INT64, is_primary=True)
        for name in _STORED:
            if name == "label":
                schema.add_field(name, DataType.INT8)
            else:
                schema.add_field(name, DataType.VARCHAR, max_length=LONGEST)
        schema.add_field(_VECTOR, DataType.FLOAT_VECTOR, dim=self._dimension)
        return schema

    def _ask(self, method: str, **arguments: Any) -> Any:
        """Call a method of the client on the collection, with further attempts: each method may be repeated."""
        arguments.setdefault("timeout", self._settings.timeout)
        call = getattr(self._client, method)
        return _ask(lambda: call(self._settings.collection, **arguments), self._settings)


def _entity(row: int, case: Case, vector: NDArray[np.float32]) -> dict[str, object]:
    entity: dict[str, object] = {name: getattr(case, name) for name in _STORED}
    for name, value in entity.items():
        if isinstance(value, str) and not storable(value):
            raise IndexFailure(f"the {name} of case {case.case[:100]!r} is not text of at most {LONGEST} bytes")
    return entity | {_ROW: int(row), _VECTOR: vector}


def _batches(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _connect(settings: MilvusSettings) -> Any:
    """A new client: pymilvus shares clients without comparing their certificates."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # no log of gRPC on standard error: errors are raised here
    try:
        from pymilvus import MilvusClient
    except ImportError as error:
        raise MissingExtra("pymilvus", "milvus") from error
    for name in ("pymilvus", "pymilvus.milvus_client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # it logs every error that it raises
    if settings.local:
        if find_spec("milvus_lite") is None:
            raise IndexFailure(f"{settings.uri} needs Milvus Lite; run: pip install milvus-lite")
        logging.getLogger("milvus_lite").addHandler(logging.NullHandler())

    def connect() -> Any:
        timeout = min(settings.timeout, 10.0)
        return MilvusClient(
            settings.uri,
            token=settings.token,
            db_name=settings.database,
            timeout=timeout,
            dedicated=True,
            **settings.tls,
        )

    client = _ask(connect, settings, min(settings.patience, _CONNECTING))
    if settings.local:
        _opened[str(Path(settings.uri).resolve())] += 1
    return client


def _release(settings: MilvusSettings) -> None:
    """Close the file of Milvus Lite when the last store on it is closed, so that another process may open it."""
    if settings.local:
        file = str(Path(settings.uri).resolve())
        _opened[file] -= 1
        if not _opened[file]:
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(settings.uri)


def retrying(seconds: float) -> "tenacity.Retrying":
    """Tries an action again for at most `seconds` while its error passes; then it raises the last error.

    The pause doubles from 0.1 s to 5 s. Half of it is random, so that the clients of a restarted server do not all come
    back at once.
    """
    import tenacity

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, Exception) and passes(error)),
        stop=tenacity.stop_before_delay(seconds),
        wait=tenacity.wait_exponential(multiplier=0.05, max=2.5) + tenacity.wait_random_exponential(0.05, max=2.5),
        reraise=True,
    )


def _ask(action: Callable[[], T], settings: MilvusSettings, patience: float | None = None) -> T:
    """What the action gives, with further attempts after transient errors. Other errors of Milvus become sentences."""
    import grpc
    from pymilvus.exceptions import MilvusException

    try:
        return retrying(settings.patience if patience is None else patience)(action)
    except (grpc.RpcError, grpc.FutureTimeoutError, MilvusException) as error:
        status, _, message = reason_of(error)
        reason = " ".join(settings.discreet(message).split())[-300:]  # the cause comes last, after its stack traces
        if message == "Open local milvus failed":
            raise IndexBusy(
                f"{settings.uri} is open in another process, or is not a database of Milvus Lite"
            ) from error
        if settings.local:
            raise IndexFailure(f"Milvus Lite cannot use {settings.uri}: {reason}") from error
        if status in {"UNAUTHENTICATED", "PERMISSION_DENIED"}:
            raise IndexFailure(f"Milvus at {settings.uri} refuses the token ({reason})") from error
        if passes(error):
            raise IndexUnreachable(
                f"Milvus at {settings.uri} does not answer ({reason}); is it running there?"
            ) from error
        raise IndexFailure(f"Milvus at {settings.uri} cannot do this: {reason}") from error
