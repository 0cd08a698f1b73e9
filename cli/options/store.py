"""What the commands share that lay an index down: how fast its search is to be, and where its vectors go."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Latency", "Memory", "Recall", "Store", "Tls", "Uri", "demand_of", "remote_store"]

Recall = Annotated[
    float | None,
    typer.Option(min=0.5, max=1, help="Share of the ten nearest that a search finds.  [default: 0.99]"),
]
Latency = Annotated[
    float | None,
    typer.Option(min=0.001, metavar="MS", help="Exact search up to these milliseconds a query.  [default: 3]"),
]
Memory = Annotated[
    float | None, typer.Option(min=0.001, metavar="GB", help="What the search may take.  [default: any]")
]
Store = Annotated[
    str, typer.Option(metavar="STORE", help="Where the vectors are: faiss, in the index; milvus, at --uri.")
]
Uri = Annotated[
    str | None,
    typer.Option(
        metavar="URI",
        help="Of Milvus: http://HOST:19530, https://..., or FILE.db. A token is taken from the environment: "
        "MURA_SEARCH_MILVUS_TOKEN.",
    ),
]
Tls = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="Of Milvus: server_pem_path, server_name, ca_pem_path, client_pem_path or client_key_path.",
    ),
]


def remote_store(store: str, uri: str | None, tls: list[str]) -> dict[str, str]:
    """Where the vectors go, as the index notes it; nothing for FAISS."""
    if store not in {"faiss", "milvus"}:
        raise typer.BadParameter(f"the store is faiss or milvus, not {store}")
    if (store == "milvus") != (uri is not None) or (tls and store == "faiss"):
        raise typer.BadParameter("--store milvus needs --uri, and --uri and --tls need --store milvus")
    if uri is None:
        return {}
    from index.milvus.settings import MilvusSettings

    settings = dict(item.partition("=")[::2] for item in tls)
    names = {"server_pem_path", "server_name", "ca_pem_path", "client_pem_path", "client_key_path"}
    if set(settings) - names:
        raise typer.BadParameter(f"--tls takes {', '.join(sorted(names))}")
    if uri.endswith(".db") and "://" not in uri:
        uri = str(Path(uri).absolute())
    settings = {
        name: str(Path(value).absolute()) if name.endswith("path") else value for name, value in settings.items()
    }
    MilvusSettings(uri, **settings)  # type: ignore[arg-type]  # which says what is wrong with it
    return {"kind": "milvus", "uri": uri, **settings}


def demand_of(recall: float | None, latency: float | None, memory: float | None) -> dict[str, float]:
    """What was asked for, as `index.vectors.base.Demand` has it."""
    wanted = {"recall": recall, "latency": latency, "memory": None if memory is None else round(memory * 2**30)}
    return {name: value for name, value in wanted.items() if value is not None}
