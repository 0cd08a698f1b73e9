"""An Orthanc of this machine's own for tests: Debian's packages orthanc and orthanc-dicomweb, on loopback."""

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Orthanc", "free_port"]

PLUGIN = "libOrthancDicomWeb.so"
PLACES = ("/usr/share/orthanc/plugins", "/usr/lib/orthanc", "/usr/local/share/orthanc/plugins")
SECONDS = 30
FIELDS = "00100010,00100020,00080050"  # patient's name and number, accession number


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


class Orthanc:
    """`url` is its DICOMweb, `dicom` the port on which it speaks DIMSE, with the title ORTHANC.

    Not over TLS: Debian's Orthanc 1.10.1 ends at the first request that comes so.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        binary = shutil.which("Orthanc")
        plugin = next((Path(place) / PLUGIN for place in PLACES if (Path(place) / PLUGIN).exists()), None)
        if binary is None or plugin is None:
            pytest.skip("Orthanc with its DICOMweb plugin (Debian: orthanc, orthanc-dicomweb) is not installed")
        port, self.dicom = free_port(), settings.get("DicomPort") or free_port()
        self.root = f"http://localhost:{port}"
        self.url = f"{self.root}/dicom-web"
        configuration = {
            "Name": "test",
            "StorageDirectory": str(folder / "db"),
            "IndexDirectory": str(folder / "db"),
            "Plugins": [str(plugin)],
            "HttpPort": port,
            "DicomPort": self.dicom,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowStore": True,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False},
        } | settings
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "orthanc.json").write_text(json.dumps(configuration))
        self._log = (folder / "log.txt").open("wb")
        self._process = subprocess.Popen(
            [binary, str(folder / "orthanc.json")], stdout=self._log, stderr=subprocess.STDOUT, cwd=folder
        )
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            time.sleep(0.1)
        self.close()
        pytest.fail("Orthanc did not start: " + (folder / "log.txt").read_text(errors="replace")[-1000:])

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()

    def put(self, data: bytes) -> str:
        """Put a file into it, by its own REST API; gives its own name of the instance."""
        return str(self._ask("/instances", data)["ID"])

    def send(self, modality: str, names: list[str]) -> None:
        """Let it send instances to one of its DicomModalities by C-STORE."""
        self._ask(f"/modalities/{modality}/store", json.dumps(names).encode())

    def find(self, kind: str, **match: str) -> list[dict[str, Any]]:
        """QIDO-RS without the client under test: `find("instances", StudyInstanceUID="1.2")`."""
        filters = "&".join(f"{name}={value}" for name, value in match.items())
        found = self._ask(f"/dicom-web/{kind}?includefield={FIELDS}&{filters}")
        return [dict(one) for one in found]

    def _ask(self, path: str, data: bytes | None = None) -> Any:
        with urllib.request.urlopen(urllib.request.Request(self.root + path, data=data), timeout=SECONDS) as reply:
            return json.loads(reply.read() or b"null")


def value(found: Mapping[str, Any], tag: str) -> Any:
    """The first value of an element in DICOM JSON."""
    return found[tag]["Value"][0]
