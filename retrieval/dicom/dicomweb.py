"""An archive over DICOMweb (PS3.18): studies fetched by QIDO-RS and WADO-RS, results sent by STOW-RS."""

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from index.atomic import write_whole
from retrieval.datasets.dicom_folder import labelled_studies
from retrieval.dicom.results import encoded
from retrieval.errors import ArchiveError, MissingExtra, redacted_traceback
from retrieval.images.dicom_header import RADIOGRAPH_CLASSES, DicomError, NoRadiograph
from retrieval.images.dicom_reader import be_silent, read_record
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
_UID = re.compile(r"(?=.{1,64}$)[0-9]+(\.[0-9]+)*")
_CLASS, _IMAGE, _SERIES, _STUDY = "00080016", "00080018", "0020000E", "0020000D"
_ACCESSION = "00080050"
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class WebArchive:
    """A DICOMweb server.

    A bearer token is taken from MURA_SEARCH_DICOMWEB_TOKEN, and only sent where nobody can listen: over https, or to
    this machine. tls: `ca`, a file of certificates to trust instead of the usual ones; `cert` and `key`, a client's
    certificate and key (PEM). Every method raises ArchiveError, one line without the token or a header's values.
    """

    def __init__(self, url: str, tls: Mapping[str, str] | None = None) -> None:
        be_silent()
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ArchiveError(f"{url} is no DICOMweb address; it looks like https://HOST/dicom-web")
        if parts.username or parts.password:
            raise ArchiveError(f"leave passwords out of the address; a token is taken from {TOKEN_VARIABLE}")
        session = requests.Session()
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if token:
            if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
                raise ArchiveError(f"a token is not sent to {parts.hostname} unencrypted; use https://")
            if not token.isascii() or not token.isprintable() or " " in token:
                raise ArchiveError(f"{TOKEN_VARIABLE} holds no token: one word of ASCII characters")
            session.auth = _Bearer(token)
        _use_tls(session, tls or {}, parts.scheme)
        try:
            self._client = DICOMwebClient(self.url, session=session, timeout=_SECONDS)
        except ValueError as error:
            raise ArchiveError(f"{url} is no DICOMweb address; it looks like https://HOST/dicom-web") from error
        self._client.set_http_retry_params(retry=False)  # it would send results again without their content
        patient = requests.adapters.HTTPAdapter(max_retries=_RETRIES)
        session.mount("http://", patient)
        session.mount("https://", patient)

    def fetch(self, study: str, folder: Path) -> list[Path]:
        """Write the study's CR, DX and secondary captures into the folder, as STUDY/SERIES/IMAGE.dcm, and list them.

        What is there from before is not fetched again. None where the archive has no such study, or no radiograph of
        it.
        """
        if not _UID.fullmatch(study):
            raise ArchiveError(f"{study!r} is no Study Instance UID; it is digits and dots")
        with self._asking("find the study"):
            found = self._pages(lambda **page: self._client.search_for_instances(study, **page))
        files = []
        for one in found:
            kind, series, image = (_first(one, tag) for tag in (_CLASS, _SERIES, _IMAGE))
            if kind not in RADIOGRAPH_CLASSES or not (_UID.fullmatch(series) and _UID.fullmatch(image)):
                continue
            file = folder / study / series / f"{image}.dcm"
            if not file.exists():
                with self._asking("send a radiograph"):
                    data = encoded(self._client.retrieve_instance(study, series, image), as_it_is=True)
                if len(data) > MAX_BYTES:
                    raise ArchiveError(
                        f"{self.url} sent a radiograph of {len(data) / 2**20:.0f} MiB: too large to read"
                    )
                if _is_other(data):
                    continue
                file.parent.mkdir(parents=True, exist_ok=True)
                write_whole(file, data)
            files.append(file)
        return files

    def fetch_labelled(
        self, table: Path, folder: Path, progress: Callable[[int, int], None] | None = None
    ) -> tuple[str, ...]:
        """Fetch every study that a table of labels names, and say how many the archive does not have.

        An accession number is looked up first, and may stand for several studies. A study that cannot be fetched is
        left out and counted; ArchiveError where several in a row cannot. Raises CollectionError.
        """
        by_study, by_accession = labelled_studies(table)
        unknown, failed, in_a_row = 0, 0, 0
        wanted = dict.fromkeys(by_study)
        for accession in by_accession:
            found = self.studies_of(accession)
            unknown += not found
            wanted |= dict.fromkeys(found)
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
            notes.append(f"labelled studies that could not be fetched: {failed}; of the last one: {reason}")
        return tuple(notes)

    def studies_of(self, accession: str) -> list[str]:
        """The studies with this very Accession Number; what it may hold as a wildcard matches no other."""
        if not accession:
            return []
        with self._asking("look up an accession number"):
            found = self._pages(
                lambda **page: self._client.search_for_studies(search_filters={"AccessionNumber": accession}, **page)
            )
        studies = {_first(one, _STUDY) for one in found if _first(one, _ACCESSION) == accession}
        return sorted(study for study in studies if _UID.fullmatch(study))

    def store(self, instances: Sequence[Any]) -> None:
        """Send instances (pydicom Datasets). ArchiveError where the archive takes not all of them."""
        with self._asking("store the results"):
            reply = self._client.store_instances(list(instances))
        failed = reply.get("FailedSOPSequence") or []
        if failed:
            reasons = sorted({f"0x{int(item.get('FailureReason') or 0):04X}" for item in failed})
            raise ArchiveError(
                f"{self.url} did not take {len(failed)} of {len(instances)} results (failure {', '.join(reasons)}); "
                "see its log"
            )

    def _pages(self, ask: Callable[..., list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """All answers of a search, in pieces until one brings nothing new: a server may send fewer than asked for."""
        found: dict[str, dict[str, Any]] = {}
        while True:
            page = ask(limit=_PAGE, offset=len(found))
            fresh = {_first(one, _IMAGE) or _first(one, _STUDY): one for one in page}
            if not fresh.keys() - found.keys():
                return list(found.values())
            found |= fresh

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """What the client and the network raise, as one sentence; their own may hold identifiers."""
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
            raise ArchiveError(f"{self.url} cannot be reached; check address and network") from error
        except requests.exceptions.HTTPError as error:
            status = error.response.status_code if error.response is not None else "an error"
            hint = f"; a token is taken from {TOKEN_VARIABLE}" if status in (401, 403) else ""
            raise ArchiveError(f"{self.url} could not {what}: it answered {status}{hint}") from None
        except Exception as error:  # broad: an answer that is none makes JSON, pydicom and the client raise anything
            logger.debug("%s", redacted_traceback(error))
            raise ArchiveError(f"{self.url} could not {what}: its answer is no DICOMweb that can be read") from None


class _Bearer(requests.auth.AuthBase):  # type: ignore[misc]  # requests has no types
    """Sets the header itself, so that no .netrc replaces it; requests takes it off when led to another host."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _is_other(data: bytes) -> bool:
    """Whether it is no radiograph; one that cannot be read is left to whoever reads it, who says what is wrong."""
    try:
        read_record(BytesIO(data), MAX_BYTES, MAX_PIXELS)
    except NoRadiograph:
        return True
    except DicomError:
        pass
    return False


def _use_tls(session: Any, tls: Mapping[str, str], scheme: str) -> None:
    if unknown := tls.keys() - set(TLS_OPTIONS):
        raise ArchiveError(f"TLS has no option {sorted(unknown)[0]}; choose of: {', '.join(TLS_OPTIONS)}")
    if tls and scheme != "https":
        raise ArchiveError("TLS options need an address that begins with https://")
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


def _first(found: Mapping[str, Any], tag: str) -> str:
    """The first value of an element in DICOM JSON (PS3.18, F.2), "" where there is none."""
    element = found.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return str(values[0]) if isinstance(values, list) and values else ""
