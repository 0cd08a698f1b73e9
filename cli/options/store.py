"""Options that say how fast the search of an index is, and where its vectors are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

__all__ = ["DemandOptions", "StoreOptions"]

TLS = ("server_pem_path", "server_name", "ca_pem_path", "client_pem_path", "client_key_path")


@dataclass(frozen=True)
class DemandOptions:
    """What the search of an index has to reach."""

    recall: Annotated[
        float | None,
        Option(
            min=0.5, max=1, metavar="SHARE", help="The share of the ten nearest that a search finds.  [default: 0.99]"
        ),
    ] = None
    latency: Annotated[
        float | None,
        Option(min=0.001, metavar="MS", help="Search exactly if a query then takes at most this long.  [default: 3]"),
    ] = None
    memory: Annotated[
        float | None, Option(min=0.001, metavar="GB", help="The most memory that the search takes.  [default: any]")
    ] = None

    def demand(self) -> dict[str, float]:
        """What is asked for, as `index.vectors.base.Demand` has it."""
        memory = None if self.memory is None else round(self.memory * 2**30)
        wanted = {"recall": self.recall, "latency": self.latency, "memory": memory}
        return {name: value for name, value in wanted.items() if value is not None}


@dataclass(frozen=True)
class StoreOptions(DemandOptions):
    """The same, and where the vectors are."""

    store: Annotated[
        str, Option(metavar="STORE", help="Where the vectors are: faiss, in the index; or milvus, at --uri.")
    ] = "faiss"
    uri: Annotated[
        str | None,
        Option(
            metavar="URI",
            help="Milvus only: http://HOST:19530, https://..., or FILE.db. MURA_SEARCH_MILVUS_TOKEN may hold a token.",
        ),
    ] = None
    tls: Annotated[
        list[str] | None,
        Option(metavar="NAME=VALUE", help=f"Milvus only: {', '.join(TLS[:-1])} or {TLS[-1]}; may be repeated."),
    ] = None

    def remote(self) -> dict[str, str]:
        """The settings of Milvus, as the index notes them; empty for FAISS. Raises BadParameter and IndexFailure."""
        if self.store not in {"faiss", "milvus"}:
            raise typer.BadParameter(f"the store is faiss or milvus, not {self.store}")
        if (self.store == "milvus") != (self.uri is not None) or (self.tls and self.store == "faiss"):
            raise typer.BadParameter("--store milvus needs --uri, and --uri and --tls need --store milvus")
        if self.uri is None:
            return {}
        from index.milvus.settings import MilvusSettings

        given = dict(item.partition("=")[::2] for item in self.tls or ())
        if not given.keys() <= set(TLS):
            raise typer.BadParameter(f"--tls takes {', '.join(sorted(TLS))}")
        local = self.uri.endswith(".db") and "://" not in self.uri
        uri = str(Path(self.uri).absolute()) if local else self.uri
        settings = {
            name: str(Path(value).absolute()) if name.endswith("path") else value for name, value in given.items()
        }
        MilvusSettings(uri, **settings)  # type: ignore[arg-type]  # raises if one of them is invalid
        return {"kind": "milvus", "uri": uri, **settings}

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of `BuildOptions` and `join_shards`."""
        return {"demand": self.demand(), "store": self.remote()}
