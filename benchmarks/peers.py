"""A filtered, study-level query against vector libraries and embedded databases, over the same vectors in one run.

    pip install hnswlib usearch sqlite-vec lancedb qdrant-client pymilvus milvus-lite
    python benchmarks/peers.py [--cases 100000] [--queries 50] [--runs 3] [--peers faiss lancedb milvus_lite]

Each is asked for the 15 nearest distinct studies of one part in seven, without those of one patient. Milvus Lite and
Qdrant's local mode group by study themselves. The others cannot: they are asked for more vectors until there are 15
studies. The libraries (FAISS, hnswlib, usearch) keep no records, so they give studies alone; the others give records.
usearch has no filter in Python: what does not match is left out of what it gives. hnswlib and usearch approximate:
their effort is doubled until they find RECALL of the studies; the others are exact. Recall is measured against exact
search by NumPy. A package that is not installed is left out and named. Qdrant takes very long to fill, so it has to be
named.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks._timing import alternate, machine, note, ratio, show
from benchmarks.scale import PARTS, cases, drawn
from index.builder import IndexBuilder
from index.case import Case
from index.reader import IndexReader

K, D, PART = 15, 128, "finger"
RECALL = 0.99  # of the approximations
MOST_EFFORT = 4_096
TUNED_ON = 30  # queries, others than those that are measured

Vectors = NDArray[np.float32]
Search = Callable[[Vectors, str], list[str]]  # a query and the patient to leave out, to the studies found


def ours(folder: Path, records: list[Case], vectors: Vectors) -> Search:
    (folder / "model").mkdir()
    with IndexBuilder.start(folder / "index", model=folder / "model", dimension=D, fingerprint="peers") as build:
        build.add(records, vectors, [b""] * len(records), np.zeros(len(records), np.float32))
        build.set_metadata("demand", {"latency": 1e9})  # exact, like the others
        build.finish()
    index = IndexReader.open(folder / "index")

    def search(query: Vectors, patient: str) -> list[str]:
        (hits,) = index.search(query[None], K, where={"part": [PART]}, exclude_patients=[[patient]])
        return [hit.case.study for hit in hits]

    return search


class Unavailable(Exception):
    """A package is installed, but this Python cannot use it."""


def until_enough(ask: Callable[[int], tuple[list[str], bool]], count: int = 4 * K + 16) -> list[str]:
    """The first K studies. `ask` gives the studies of the `count` nearest vectors, and whether there are no others."""
    while True:
        studies_found, whole = ask(count)
        studies = list(dict.fromkeys(studies_found))
        if len(studies) >= K or whole:
            return studies[:K]
        count *= 4


def tuned(search: Callable[[Vectors, str, int], list[str]], vectors: Vectors) -> Search:
    """An approximate search with the least effort, found by doubling, that reaches RECALL on queries of its own."""
    queries = next(drawn(3 * TUNED_ON, D, 4))[::3]

    def with_effort(effort: int) -> Search:
        return lambda query, patient: search(query, patient, effort)

    effort = 4 * K
    while effort < MOST_EFFORT and recall(with_effort(effort), queries, vectors) < RECALL:
        effort *= 2
    return with_effort(effort)


def bare_faiss(folder: Path, records: list[Case], vectors: Vectors) -> Search:
    import faiss

    flat = faiss.IndexFlatIP(D)
    flat.add(vectors)
    of_part = np.array([record.part == PART for record in records])
    patients = np.array([record.patient for record in records])
    rows_of = {patient: np.flatnonzero(patients == patient) for patient in dict.fromkeys(patients[:6_000].tolist())}

    def search(query: Vectors, patient: str) -> list[str]:
        allowed = of_part.copy()
        allowed[rows_of[patient]] = False
        # FAISS's Python gives these constructors other parameters than its stubs say.
        selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))  # type: ignore[call-arg, arg-type]
        parameters = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]

        def ask(count: int) -> tuple[list[str], bool]:
            rows = flat.search(query[None], count, params=parameters)[1][0]
            return [records[row].study for row in rows.tolist() if row >= 0], bool((rows < 0).any())

        return until_enough(ask)

    return search


def hnswlib(folder: Path, records: list[Case], vectors: Vectors) -> Search:
    import hnswlib

    index = hnswlib.Index(space="ip", dim=D)
    index.init_index(max_elements=len(records), ef_construction=200, M=32)
    index.add_items(vectors)
    of_part = [record.part == PART for record in records]
    patients = [record.patient for record in records]

    def search(query: Vectors, patient: str, effort: int) -> list[str]:
        def ask(count: int) -> tuple[list[str], bool]:
            index.set_ef(max(effort, count))
            rows = index.knn_query(
                query[None], count, num_threads=1, filter=lambda row: of_part[row] and patients[row] != patient
            )[0][0]
            return [records[row].study for row in rows.tolist()], False

        return until_enough(ask)

    return tuned(search, vectors)


def usearch(folder: Path, records: list[Case], vectors: Vectors) -> Search:
    from usearch.index import Index

    index = Index(ndim=D, metric="ip", dtype="f32", connectivity=32, expansion_add=200)
    index.add(np.arange(len(records)), vectors)

    def search(query: Vectors, patient: str, effort: int) -> list[str]:
        def ask(count: int) -> tuple[list[str], bool]:
            index.expansion_search = max(effort, count)
            rows = [int(row) for row in index.search(query, count, threads=1).keys]
            nearest = [records[row] for row in rows]
            matching = [record.study for record in nearest if record.part == PART and record.patient != patient]
            return matching, count >= len(records)

        return until_enough(ask, 8 * (4 * K + 16))

    return tuned(search, vectors)


def sqlite_vec(folder: Path, records: list[Case], vectors: Vectors) -> Search:
    import sqlite3

    import sqlite_vec as extension

    database = sqlite3.connect(folder / "cases.sqlite")
    if not hasattr(database, "enable_load_extension"):
        raise Unavailable("this Python's sqlite3 loads no extensions")
    database.enable_load_extension(True)
    extension.load(database)
    columns = f"vector float[{D}] distance_metric=cosine, part text, patient text, +name text, +study text"
    database.execute(f"CREATE VIRTUAL TABLE cases USING vec0({columns})")
    with database:
        rows = ((v.tobytes(), r.part, r.patient, r.case, r.study) for r, v in zip(records, vectors, strict=True))
        database.executemany("INSERT INTO cases(vector, part, patient, name, study) VALUES (?, ?, ?, ?, ?)", rows)
    statement = (
        "SELECT study, name, patient, part FROM cases "
        "WHERE vector MATCH ? AND k = ? AND part = ? AND patient != ? ORDER BY distance"
    )

    def search(query: Vectors, patient: str) -> list[str]:
        def ask(count: int) -> tuple[list[str], bool]:
            nearest = database.execute(statement, (query.tobytes(), count, PART, patient)).fetchall()
            return [row[0] for row in nearest], len(nearest) < count

        return until_enough(ask)

    return search


def lancedb(folder: Path, records: list[Case], vectors: Vectors) -> Search:
    import lancedb
    import pyarrow as pa

    names = ("case", "study", "patient", "part")
    columns = {name: [getattr(record, name) for record in records] for name in names}
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), D)
    table = lancedb.connect(folder / "lance").create_table("cases", pa.table({**columns, "vector": lists}))

    def search(query: Vectors, patient: str) -> list[str]:
        def ask(count: int) -> tuple[list[str], bool]:
            asked = table.search(query).distance_type("dot").limit(count)
            rows = asked.where(f"part = '{PART}' AND patient <> '{patient}'", prefilter=True).to_list()
            return [row["study"] for row in rows], len(rows) < count

        return until_enough(ask)

    return search


def qdrant(folder: Path, records: list[Case], vectors: Vectors) -> Search:
    from qdrant_client import QdrantClient, models

    client = QdrantClient(path=str(folder / "qdrant"))
    params = models.VectorParams(size=D, distance=models.Distance.DOT)
    client.create_collection("cases", vectors_config=params)
    for start in range(0, len(records), 5_000):
        batch = range(start, min(start + 5_000, len(records)))
        points = [
            models.PointStruct(
                id=n,
                vector=vectors[n].tolist(),
                payload={name: getattr(records[n], name) for name in ("case", "study", "patient", "part")},
            )
            for n in batch
        ]
        client.upsert("cases", points)

    def search(query: Vectors, patient: str) -> list[str]:
        wanted = models.Filter(
            must=[models.FieldCondition(key="part", match=models.MatchValue(value=PART))],
            must_not=[models.FieldCondition(key="patient", match=models.MatchValue(value=patient))],
        )
        answer = client.query_points_groups(
            "cases", group_by="study", query=query.tolist(), query_filter=wanted, limit=K, group_size=1
        )
        return [str(group.id) for group in answer.groups]

    return search


def milvus_lite(folder: Path, records: list[Case], vectors: Vectors) -> Search:
    from pymilvus import DataType, MilvusClient

    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    client = MilvusClient(str(folder / "milvus.db"))
    schema = client.create_schema(auto_id=False)
    schema.add_field("row", DataType.INT64, is_primary=True)
    for name in ("case", "study", "patient", "part"):
        schema.add_field(name, DataType.VARCHAR, max_length=256)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=D)
    index = client.prepare_index_params("vector", metric_type="IP", index_type="FLAT")
    client.create_collection("cases", schema=schema, index_params=index)
    for start in range(0, len(records), 5_000):
        batch = range(start, min(start + 5_000, len(records)))
        entities = [
            {name: getattr(records[n], name) for name in ("case", "study", "patient", "part")}
            | {"row": n, "vector": vectors[n]}
            for n in batch
        ]
        client.insert("cases", entities)
    client.load_collection("cases")

    def search(query: Vectors, patient: str) -> list[str]:
        (hits,) = client.search(
            "cases",
            data=[query],
            limit=K,
            filter=f"part == '{PART}' and patient != '{patient}'",
            output_fields=["case", "study", "patient", "part"],
            group_by_field="study",
        )
        return [hit.entity["study"] for hit in hits]

    return search


PEERS = {
    "faiss": bare_faiss, "hnswlib": hnswlib, "usearch": usearch, "sqlite_vec": sqlite_vec,
    "lancedb": lancedb, "milvus_lite": milvus_lite, "qdrant_client": qdrant,
}  # fmt: skip
BY_STUDY = ("mura-search", "milvus_lite", "qdrant_client")


def recall(search: Search, queries: Vectors, vectors: Vectors) -> float:
    """The share of the 15 nearest studies that are found."""
    patients, studies = np.arange(len(vectors)) // 6, np.arange(len(vectors)) // 3
    finger = patients % 7 == PARTS.index(PART)
    shares = []
    for n, query in enumerate(queries):
        similarities = np.where(finger & (patients != n), vectors @ query, -2)
        order = np.argsort(-similarities, kind="stable")[: 4 * K]
        truth = list(dict.fromkeys(studies[order].tolist()))[:K]
        shares.append(len({f"s{study}" for study in truth} & set(search(query, f"p{n}"))) / K)
    return float(np.mean(shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--peers", nargs="+", choices=PEERS, default=[peer for peer in PEERS if peer != "qdrant_client"]
    )
    options = parser.parse_args()
    machine("faiss-cpu", "hnswlib", "usearch", "sqlite-vec", "lancedb", "qdrant-client", "pymilvus", "milvus-lite")
    vectors = np.concatenate(list(drawn(options.cases, D, 2)))
    records = cases(0, options.cases)
    queries = next(drawn(3 * options.queries, D, 3))[::3]

    def timed(search: Search) -> Callable[[], float]:
        def run() -> float:
            started = time.perf_counter()
            for n, query in enumerate(queries):
                search(query, f"p{n}")
            return 1000 * (time.perf_counter() - started) / len(queries)

        return run

    with tempfile.TemporaryDirectory() as temporary:
        searches: dict[str, Search] = {}
        for name, make in {"mura-search": ours, **{name: PEERS[name] for name in options.peers}}.items():
            if name in PEERS and find_spec(name) is None:
                note(f"{name} is not installed")
                continue
            (Path(temporary) / name).mkdir()
            started = time.perf_counter()
            try:
                searches[name] = make(Path(temporary) / name, records, vectors)
            except Unavailable as error:
                note(f"{name} is left out: {error}")
                continue
            print(f"{name}: filled in {time.perf_counter() - started:.1f} s", flush=True)
        for name, search in searches.items():
            way = "itself" if name in BY_STUDY else "asked for more vectors until there are enough studies"
            note(f"{name}: recall of studies at {K} {recall(search, queries, vectors):.4f}; by study: {way}")
        samples = dict(zip(searches, alternate(options.runs, *map(timed, searches.values())), strict=True))
    for name, times in samples.items():
        show(name, times, "ms a query")
        if name != "mura-search":
            ratio(f"{name} / mura-search", times, samples["mura-search"])


if __name__ == "__main__":
    main()
