"""`mura-search serve`: the page and the HTTP API."""

import signal
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import IndexPlace, note
from cli.options.dicom import DicomOut, DicomwebTls, StoreUrl
from cli.scp import Allow, Caller, Quiet, SendTo, Title, note_counts, open_node, spool_named
from index.errors import MissingExtra

if TYPE_CHECKING:
    from retrieval.answer import Answer
    from retrieval.searcher import Searcher
    from web.service.study_store import Study

__all__ = ["OpenPage", "report_of", "run_server", "serve"]

OpenPage = Annotated[bool, typer.Option("--open", help="Open the page in the browser when it is ready.")]


def serve(
    index: IndexPlace = None,
    host: Annotated[str, typer.Option(metavar="NAME", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="The port; 0 takes any free one.")] = 8000,
    open_page: OpenPage = False,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The token to ask for is in this file, else in MURA_SEARCH_TOKEN."),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let other machines ask without a token: everybody who can reach it.")
    ] = False,
    name: Annotated[
        list[str] | None, typer.Option(metavar="HOST", help="A name this server goes by; repeat for several.")
    ] = None,
    files: Annotated[
        bool, typer.Option("--files", help="Show indexed radiographs in full, from the collection's files.")
    ] = False,
    worklist: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Rank the studies of this folder on a page of their own.")
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Serve over TLS, with this certificate (PEM).")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The certificate's key, where it is not in the same file.")
    ] = None,
    max_upload: Annotated[
        int, typer.Option(min=1, max=1024, metavar="MIB", help="The largest upload, all views together.")
    ] = 64,
    scp: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            metavar="N",
            help="Be a DICOM node at this port too, as `mura-search scp` is; needs --spool.",
        ),
    ] = None,
    scp_host: Annotated[str, typer.Option(metavar="ADDRESS", help="The node's address.")] = "127.0.0.1",
    spool: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the node keeps radiographs until they are answered.")
    ] = None,
    title: Title = "MURASEARCH",
    caller: Caller = None,
    allow: Allow = None,
    quiet: Quiet = 10.0,
    send_to: SendTo = None,
    dicom_out: DicomOut = None,
    store: StoreUrl = None,
    dicomweb_tls: DicomwebTls = None,
) -> None:
    """Serve the page to ask on, and the HTTP API, until interrupted; with --scp for DICOM as well.

    Only this machine can ask, unless --host says otherwise; other machines then need the token.
    """
    options: dict[str, Any] = {
        "host": host, "port": port, "insecure": insecure, "names": tuple(name or ()), "files": files,
        "worklist": worklist, "certificate": certificate, "key": key,
    }  # fmt: skip
    if (scp is None) != (spool is None):
        raise typer.BadParameter("--scp needs --spool, and --spool is of use with --scp alone")
    if scp is None and (send_to or dicom_out or store or caller or allow):
        raise typer.BadParameter("--send-to, --dicom-out, --store, --caller and --allow are of use with --scp alone")
    with ExitStack() as stack:
        if scp is not None and spool is not None:
            place = spool, scp_host, scp
            node = stack.enter_context(
                open_node(place, title, caller, allow, quiet, send_to, index, dicom_out, store, dicomweb_tls)
            )
            stack.callback(note_counts, node)
            with spool_named(spool):
                stack.enter_context(node)
            note(f"{title} listens at {scp_host}:{node.port}")
        run_server(index, options, token_file=token_file, max_upload=max_upload, open_page=open_page)


def run_server(
    index: Path | None,
    options: dict[str, Any],
    *,
    token_file: Path | None = None,
    max_upload: int = 64,
    open_page: bool = False,
) -> None:
    """Serve with the options of `web.settings.Settings` until interrupted or terminated, then return.

    Raises MissingExtra without the extra `web`.
    """
    try:
        from web.server import serve as run
        from web.settings import Limits, Settings, read_token
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "web") from error

    def ready(address: str) -> None:
        note(f"The page is at {address} (stop with Ctrl+C)")
        if open_page:
            import webbrowser

            webbrowser.open(address)

    settings = Settings(token=read_token(token_file), limits=Limits(body=max_upload << 20), **options)
    if settings.insecure and settings.token is None and not settings.loopback:
        note(f"warning: no token is asked for, and {settings.host} can be reached by other machines")
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Uvicorn hands it on when it has stopped
    with suppress(KeyboardInterrupt):  # which is how it is meant to end
        run(index, settings, ready=ready, report=report_of)


def report_of(searcher: "Searcher", study: "Study", answer: "Answer") -> str:
    """The report that `--report` writes, of a study that the server remembers."""
    from retrieval.reports.answer_report import answer_report

    return answer_report(searcher, answer, [view.pixels for view in study.views])
