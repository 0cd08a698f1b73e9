"""An archive over DICOMweb (PS3.18): studies fetched by QIDO-RS and WADO-RS, results sent by STOW-RS."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from index.atomic import write_whole
from retrieval.datasets.case_table import Meanings
from retrieval.datasets.dicom_folder import labelled_studies
from retrieval.dicom.results import encoded
from retrieval.dicom.source_instances import UID
from retrieval.errors import ArchiveError, MissingExtra, redacted_traceback
from retrieval.images.dicom_header import RADIOGRAPH_CLASSES, DicomError, NoRadiograph
from retrieval.images.dicom_reader import read_record
from retrieval.images.dicom_silence import be_silent
from retrieval.images.radiograph import MAX_BYTES, MAX_PIXELS

try:
    import requests
    from dicomweb_client.api import DICOMwebClient
    from urllib3.util import Retry
except ImportError as error:
    raise MissingExtra(error.name or "dicomweb-client", "dicom") from error

__all__ = ["TLS_OPTIONS", "TOKEN_VARIABLE", "WebArchive"]

logger = logging.getLogger("mura-search")

TOKEN_VARIABLE = "MURA_SEARCH_DICOMWEB_TOKEN"
TLS_OPTIONS = ("ca", "cert", "key")
_SECONDS = 60.0  # to connect, and between two pieces of a reply
_PAGE = 100
_IN_A_ROW = 3  # studies that cannot be fetched: then the archive is at fault
_RETRIES = Retry(
    total=3, connect=1, other=0, backoff_factor=0.5, status_forcelist=(429, 502, 503, 504), allowed_methods=("GET",)
)
_CLASS, _IMAGE, _SERIES, _STUDY = "00080016", "00080018", "0020000E", "0020000D"
_ACCESSION = "00080050"
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class WebArchive:
    """A DICOMweb server.

    The bearer token in MURA_SEARCH_DICOMWEB_TOKEN is sent over https, or to this machine only. tls: `ca`, a file of
    certificates to trust instead of the usual ones; `cert` and `key`, a client's certificate and key (PEM). Every
    method raises ArchiveError, one line without the token or a header's values.
    """

    def __init__(self, url: str, tls: Mapping[str, str] | None = None) -> None:
        be_silent()
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        invalid = f"{url} is not the URL of a DICOMweb server, such as https://HOST/dicom-web"
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ArchiveError(invalid)
        if parts.username or parts.password:
            raise ArchiveError(f"the URL must not have a password; put a token into {TOKEN_VARIABLE}")
        session = requests.Session()
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if token:
            if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
                raise ArchiveError(f"a token is not sent to {parts.hostname} unencrypted; use https://")
            if not token.isascii() or not token.isprintable() or " " in token:
                raise ArchiveError(f"{TOKEN_VARIABLE} is not a token, which is one word of ASCII characters")
            session.auth = _Bearer(token)
        _use_tls(session, tls or {}, parts.scheme)
        try:
            self._client = DICOMwebClient(self.url, session=session, timeout=_SECONDS)
        except ValueError as error:
            raise ArchiveError(invalid) from error
        self._client.set_http_retry_params(retry=False)  # it would send results again without their content
        for scheme in ("http://", "https://"):
            session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=_RETRIES))

    def fetch(self, study: str, folder: Path) -> list[Path]:
        """Write the study's CR, DX and secondary captures into the folder, as STUDY/SERIES/IMAGE.dcm, and list them.

        Files that exist are not fetched again. The list is empty if the archive has no radiograph of the study.
        Raises ArchiveError if the archive does not answer, or sends a radiograph that is too large.
        """
        if not UID.fullmatch(study):
            raise ArchiveError(f"{study!r} is not a Study Instance UID, which has only digits and dots")
        with self._asking("find the study"):
            instances = self._pages(lambda **page: self._client.search_for_instances(study, **page))
        files = []
        for instance in instances:
            kind, series, image = (_first(instance, tag) for tag in (_CLASS, _SERIES, _IMAGE))
            if kind not in RADIOGRAPH_CLASSES or not (UID.fullmatch(series) and UID.fullmatch(image)):
                continue
            file = folder / study / series / f"{image}.dcm"
            if not file.exists():
                with self._asking("send a radiograph"):
                    data = encoded(self._client.retrieve_instance(study, series, image), as_it_is=True)
                if len(data) > MAX_BYTES:
                    raise ArchiveError(f"{self.url} sent a radiograph of {len(data) >> 20} MiB, too large to read")
                if _is_no_radiograph(data):
                    continue
                file.parent.mkdir(parents=True, exist_ok=True)
                write_whole(file, data)
            files.append(file)
        return files

    def fetch_labelled(
        self,
        table: Path,
        folder: Path,
        progress: Callable[[int, int], None] | None = None,
        labels_are: Meanings | None = None,
    ) -> tuple[str, ...]:
        """Fetch every study that a table of labels names; gives remarks on the studies that are missing.

        An accession number is looked up first, and may stand for several studies. A study that cannot be fetched is
        left out. Raises ArchiveError if several in a row cannot be fetched, and CollectionError.
        """
        by_study, by_accession = labelled_studies(table, labels_are)
        unknown, failed, in_a_row = 0, 0, 0
        wanted = dict.fromkeys(by_study)
        for accession in by_accession:
            studies = self.studies_of(accession)
            unknown += not studies
            wanted |= dict.fromkeys(studies)
        for number, study in enumerate(wanted, start=1):
            try:
                unknown += not self.fetch(study, folder)
                in_a_row = 0
            except ArchiveError as error:
                failed, in_a_row, reason = failed + 1, in_a_row + 1, str(error)
                if in_a_row == min(_IN_A_ROW, len(wanted)):
                    raise
            if progress:
                progress(number, len(wanted))
        notes = [f"labelled studies without a radiograph in the archive: {unknown}"] if unknown else []
        if failed:
            notes.append(f"labelled studies that could not be fetched: {failed}; the last one: {reason}")
        return tuple(notes)

    def studies_of(self, accession: str) -> list[str]:
        """The studies with exactly this Accession Number: wildcards in it match nothing else."""
        if not accession:
            return []
        with self._asking("look up an accession number"):
            filters = {"AccessionNumber": accession}
            replies = self._pages(lambda **page: self._client.search_for_studies(search_filters=filters, **page))
        studies = {_first(reply, _STUDY) for reply in replies if _first(reply, _ACCESSION) == accession}
        return sorted(study for study in studies if UID.fullmatch(study))

    def store(self, instances: Sequence[Any]) -> None:
        """Send instances (pydicom Datasets). Raises ArchiveError if the archive does not take all of them."""
        with self._asking("store the results"):
            reply = self._client.store_instances(list(instances))
        failed = reply.get("FailedSOPSequence") or []
        if failed:
            reasons = sorted({f"0x{int(item.get('FailureReason') or 0):04X}" for item in failed})
            raise ArchiveError(
                f"{self.url} did not accept {len(failed)} of {len(instances)} results (failure {', '.join(reasons)}); "
                "see its log"
            )

    def _pages(self, ask: Callable[..., list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """All replies of a search, page by page until one has nothing new: a server may send fewer than asked for."""
        replies: dict[str, dict[str, Any]] = {}
        while True:
            page = {
                _first(item, _IMAGE) or _first(item, _STUDY): item for item in ask(limit=_PAGE, offset=len(replies))
            }
            if page.keys() <= replies.keys():
                return list(replies.values())
            replies |= page

    @contextmanager
    def _asking(self, request: str) -> Iterator[None]:
        """Raise errors of the client and the network as one sentence: their own text may have identifiers."""
        try:
            yield
        except ArchiveError:
            raise
        except requests.exceptions.SSLError as error:
            raise ArchiveError(
                f"{self.url} cannot be trusted: its certificate does not fit; name its issuer: --dicomweb-tls ca=FILE"
            ) from error
        except requests.exceptions.Timeout as error:
            raise ArchiveError(f"{self.url} did not answer within {_SECONDS:.0f} s") from error
        except requests.exceptions.ConnectionError as error:
            raise ArchiveError(f"{self.url} cannot be reached; check the URL and the network") from error
        except requests.exceptions.HTTPError as error:
            status = error.response.status_code if error.response is not None else "an error"
            hint = f"; a token is taken from {TOKEN_VARIABLE}" if status in (401, 403) else ""
            raise ArchiveError(f"{self.url} could not {request}: it answered {status}{hint}") from None
        except Exception as error:  # broad: an invalid reply makes JSON, pydicom and the client raise anything
            logger.debug("%s", redacted_traceback(error))
            raise ArchiveError(f"{self.url} could not {request}: its reply is not valid DICOMweb") from None


class _Bearer(requests.auth.AuthBase):  # type: ignore[misc]  # requests has no types
    """Sets the header itself, so that no .netrc replaces it; requests removes it if another host is asked."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _is_no_radiograph(data: bytes) -> bool:
    """Whether it is DICOM of another kind. False for a file that cannot be read: who reads it says what is wrong."""
    try:
        read_record(BytesIO(data), MAX_BYTES, MAX_PIXELS)
    except DicomError as error:
        return isinstance(error, NoRadiograph)
    return False


def _use_tls(session: Any, tls: Mapping[str, str], scheme: str) -> None:
    if unknown := tls.keys() - set(TLS_OPTIONS):
        raise ArchiveError(f"TLS has no option {sorted(unknown)[0]}; the options are {', '.join(TLS_OPTIONS)}")
    if tls and scheme != "https":
        raise ArchiveError("TLS options need a URL that begins with https://")
    if "key" in tls and "cert" not in tls:
        raise ArchiveError("a TLS key needs its certificate: --dicomweb-tls cert=FILE")
    for file in tls.values():
        if not os.access(file, os.R_OK) or not Path(file).is_file():
            raise ArchiveError(f"{file} cannot be read; name a PEM file")
    if "ca" in tls:
        session.verify = tls["ca"]
        session.trust_env = False  # or REQUESTS_CA_BUNDLE would take its place
    if "cert" in tls:
        session.cert = (tls["cert"], tls["key"]) if "key" in tls else tls["cert"]


def _first(item: Mapping[str, Any], tag: str) -> str:
    """The first value of an element in DICOM JSON (PS3.18, F.2), "" if it has none."""
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return str(values[0]) if isinstance(values, list) and values else ""
