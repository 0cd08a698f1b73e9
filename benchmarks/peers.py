"""A filtered, study-level query against embedded vector databases, over the same vectors in one run.

    pip install lancedb qdrant-client pymilvus milvus-lite
    python benchmarks/peers.py [--cases 100000] [--queries 50] [--runs 3] [--peers lancedb milvus_lite]

Each is asked for the 15 nearest distinct studies of one part in seven, without those of one patient, with their
records. All search exactly here. Qdrant's local mode and Milvus Lite group by study themselves (Milvus Lite:
`group_by_field`); LanceDB is asked for more vectors until there are 15 studies. The results are compared with exact
search by NumPy. A package that is not installed is left out. Qdrant takes very long to fill, so it has to be named.
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

from benchmarks._timing import alternate, machine, ratio, show
from benchmarks.scale import PARTS, cases, drawn
from index.builder import IndexBuilder
from index.case import Case
from index.reader import IndexReader

K, D, PART = 15, 128, "finger"

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


def lancedb(folder: Path, records: list[Case], vectors: Vectors) -> Search:
    import lancedb
    import pyarrow as pa

    names = ("case", "study", "patient", "part")
    columns = {name: [getattr(record, name) for record in records] for name in names}
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), D)
    table = lancedb.connect(folder / "lance").create_table("cases", pa.table({**columns, "vector": lists}))

    def search(query: Vectors, patient: str) -> list[str]:
        count = 4 * K + 16
        while True:
            asked = table.search(query).distance_type("dot").limit(count)
            rows = asked.where(f"part = '{PART}' AND patient <> '{patient}'", prefilter=True).to_list()
            studies = list(dict.fromkeys(row["study"] for row in rows))
            if len(studies) >= K or len(rows) < count:
                return studies[:K]
            count *= 4

    return search


def qdrant(folder: Path, records: list[Case], vectors: Vectors) -> Search:
    from qdrant_client import QdrantClient, models

    client = QdrantClient(path=str(folder / "qdrant"))
    params = models.VectorParams(size=D, distance=models.Distance.DOT)
    client.create_collection("cases", vectors_config=params)
    for start in range(0, len(records), 5_000):
        some = range(start, min(start + 5_000, len(records)))
        points = [
            models.PointStruct(
                id=n,
                vector=vectors[n].tolist(),
                payload={name: getattr(records[n], name) for name in ("case", "study", "patient", "part")},
            )
            for n in some
        ]
        client.upsert("cases", points)

    def search(query: Vectors, patient: str) -> list[str]:
        wanted = models.Filter(
            must=[models.FieldCondition(key="part", match=models.MatchValue(value=PART))],
            must_not=[models.FieldCondition(key="patient", match=models.MatchValue(value=patient))],
        )
        found = client.query_points_groups(
            "cases", group_by="study", query=query.tolist(), query_filter=wanted, limit=K, group_size=1
        )
        return [str(group.id) for group in found.groups]

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
        some = range(start, min(start + 5_000, len(records)))
        entities = [
            {name: getattr(records[n], name) for name in ("case", "study", "patient", "part")}
            | {"row": n, "vector": vectors[n]}
            for n in some
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


PEERS = {"lancedb": lancedb, "qdrant_client": qdrant, "milvus_lite": milvus_lite}


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
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=["lancedb", "milvus_lite"])
    options = parser.parse_args()
    machine("faiss-cpu", "lancedb", "qdrant-client", "pymilvus", "milvus-lite")
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
                print(f"{name} is not installed")
                continue
            (Path(temporary) / name).mkdir()
            started = time.perf_counter()
            searches[name] = make(Path(temporary) / name, records, vectors)
            print(f"{name}: filled in {time.perf_counter() - started:.1f} s", flush=True)
        for name, search in searches.items():
            print(f"{name}: recall of studies at {K} {recall(search, queries, vectors):.4f}", flush=True)
        samples = dict(zip(searches, alternate(options.runs, *map(timed, searches.values())), strict=True))
    for name, own in samples.items():
        show(name, own, "ms a query")
        if name != "mura-search":
            ratio(f"{name} / mura-search", own, samples["mura-search"])


if __name__ == "__main__":
    main()
