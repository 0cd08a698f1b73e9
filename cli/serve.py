"""`mura-search serve`: the page and the HTTP API."""

import signal
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Option

from cli.console import note
from cli.options.common import IndexFolder, OpenPage, Port
from cli.scp import NodeOptions, running
from index.errors import MissingExtra

if TYPE_CHECKING:
    from retrieval.answer import Answer
    from retrieval.searcher import Searcher
    from web.service.study_store import Study

__all__ = ["ServerOptions", "report_of", "run_server", "serve"]


@dataclass(frozen=True)
class ServerOptions:
    """Who may ask, and what is shown."""

    host: Annotated[str, Option(metavar="NAME", help="The address to listen on.")] = "127.0.0.1"
    port: Port = 8000
    open_page: OpenPage = False
    token_file: Annotated[
        Path | None,
        Option(metavar="FILE", help="Require the token in this file. By default it is taken from MURA_SEARCH_TOKEN."),
    ] = None
    filing_token_file: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="The token in this file permits changes of the index: file studies, correct labels, set them aside.",
        ),
    ] = None
    allow_filing: Annotated[
        bool, Option("--allow-filing", help="Let everybody on this machine change the index, without a token.")
    ] = False
    insecure: Annotated[
        bool, Option("--insecure", help="Let everybody who can reach the server ask, without a token.")
    ] = False
    name: Annotated[list[str] | None, Option(metavar="HOST", help="A host name of this server; may be repeated.")] = (
        None
    )
    allow_origin: Annotated[
        list[str] | None,
        Option(
            metavar="ORIGIN",
            help="Let pages of this site, such as https://viewer.example.org, ask the API; may be repeated.",
        ),
    ] = None
    files: Annotated[
        bool, Option("--files", help="Show indexed radiographs in full size, from the collection's files.")
    ] = False
    worklist: Annotated[
        Path | None, Option(metavar="FOLDER", help="Rank the studies of this folder on a page of their own.")
    ] = None
    certificate: Annotated[Path | None, Option(metavar="FILE", help="Serve over TLS with this certificate (PEM).")] = (
        None
    )
    key: Annotated[
        Path | None, Option(metavar="FILE", help="The certificate's key, if it is not in the same file.")
    ] = None
    max_upload: Annotated[
        int, Option(min=1, max=1024, metavar="MIB", help="The largest upload, all views together.")
    ] = 64
    log_format: Annotated[
        Literal["text", "json"], Option(metavar="FORM", help="Log lines as text, or as JSON objects: json.")
    ] = "text"

    def settings(self) -> Any:
        """The settings of the server, `web.settings.Settings`."""
        from web.settings import Limits, Settings, read_token

        return Settings(
            host=self.host,
            port=self.port,
            token=read_token(self.token_file),
            filing_token=read_token(self.filing_token_file) if self.filing_token_file else None,
            allow_filing=self.allow_filing,
            insecure=self.insecure,
            names=tuple(self.name or ()),
            origins=tuple(self.allow_origin or ()),
            files=self.files,
            worklist=self.worklist,
            certificate=self.certificate,
            key=self.key,
            log=self.log_format,
            limits=Limits(body=self.max_upload << 20),
        )


def serve(
    options: ServerOptions,
    node_options: NodeOptions,
    index: IndexFolder = None,
    scp: Annotated[
        int | None,
        Option(
            min=0,
            max=65535,
            metavar="N",
            help="Also be a DICOM node on this port, as the command scp is. Needs --spool.",
        ),
    ] = None,
    scp_host: Annotated[str, Option(metavar="ADDRESS", help="The address that the node listens on.")] = "127.0.0.1",
    spool: Annotated[
        Path | None, Option(metavar="FOLDER", help="The node keeps radiographs here until they are answered.")
    ] = None,
) -> None:
    """Serve the page and the HTTP API until interrupted; with --scp also a DICOM node.

    Only this machine can ask. To let other machines ask, give --host and a token.
    """
    if (scp is None) != (spool is None):
        raise typer.BadParameter("give both --scp and --spool, or neither")
    if scp is None and (node_options.receives_results or node_options.caller or node_options.allow):
        raise typer.BadParameter("--send-to, --dicom-out, --store, --caller and --allow need --scp")
    with ExitStack() as stack:
        if scp is not None and spool is not None:
            node = stack.enter_context(node_options.node(spool, scp_host, scp, index))
            stack.enter_context(running(node, node_options.title, scp_host, spool))
        run_server(index, options)


def run_server(index: Path | None, options: ServerOptions) -> None:
    """Serve until interrupted or terminated, then return. Raises MissingExtra without the extra `web`."""
    try:
        from web.server import serve as run
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "web") from error

    def ready(address: str) -> None:
        note(f"The page is at {address} (stop with Ctrl+C)")
        if options.open_page:
            import webbrowser

            webbrowser.open(address)

    settings = options.settings()
    if settings.insecure and settings.token is None and not settings.loopback:
        note(f"warning: everybody who can reach {settings.host} may ask, without a token")
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Uvicorn raises it again when it has stopped
    with suppress(KeyboardInterrupt):  # the usual end
        run(index, settings, ready=ready, report=report_of)


def report_of(searcher: "Searcher", study: "Study", answer: "Answer") -> str:
    """The report that `--report` writes, of a study that the server holds."""
    from retrieval.reports.answer_report import answer_report

    return answer_report(searcher, answer, [view.pixels for view in study.views])
