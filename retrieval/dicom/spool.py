"""The spool of a DICOM node: radiographs of patients, and results, on their way through folders.

    in/STUDY/IMAGE.dcm             acknowledged, and not answered yet
    work/STUDY-TOKEN/IMAGE.dcm     being answered
    out/STUDY-TOKEN/*.dcm, done    a result that waits for delivery; without `done` it is incomplete
    failed/STUDY-TOKEN/IMAGE.dcm   cannot be answered; kept for an administrator

Names are hashes. STUDY is of the Study Instance UID and the Patient ID, so patients never share a folder.
"""

import hashlib
import secrets
import shutil
import threading
import time
from pathlib import Path

from index.atomic import remove_strays, write_whole
from retrieval.errors import MuraSearchError

__all__ = ["Conflict", "Spool"]


class Conflict(MuraSearchError):
    """A radiograph that contradicts one in the spool; `str(error)` completes "it ...". `duplicate`: by its UID."""

    def __init__(self, sentence: str, *, duplicate: bool) -> None:
        super().__init__(sentence)
        self.duplicate = duplicate


class Spool:
    """The folders of a spool; methods may be called from several threads. They raise OSError."""

    def __init__(self, folder: Path, quiet: float, retry: float) -> None:
        """quiet, retry: as `NodeSettings` has them, in seconds."""
        self.incoming, self.work, self.out, self.failed = (folder / name for name in ("in", "work", "out", "failed"))
        self._quiet, self._retry = quiet, retry
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}  # monotonic time of the last radiograph of each folder of `in`

    def open(self) -> None:
        """Make the folders, and take up what an earlier process left."""
        for folder in (self.incoming, self.work, self.out, self.failed):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in self.work.iterdir():
            left.rename(self._free(left.name))
        for folder in self.incoming.iterdir():
            remove_strays(folder)
            if any(folder.iterdir()):
                self._last[folder.name] = time.monotonic()
            else:
                folder.rmdir()
        for folder in self.out.iterdir():
            if not (folder / "done").exists():  # its study is answered again
                shutil.rmtree(folder)

    def keep(self, study: str, patient: str, image: str, data: bytes) -> None:
        """Write one radiograph to the disk, given its identifiers. Raises Conflict."""
        study, patient, name = _hash(study), _hash(patient)[:16], f"{_hash(image)}.dcm"
        with self._lock:
            waiting = [folder for folders in (self.incoming, self.work) for folder in folders.iterdir()]
            if any(folder.name.startswith(study) and _study(folder) != f"{study}.{patient}" for folder in waiting):
                raise Conflict("has the Study Instance UID of another patient's study", duplicate=False)
            folder = self.incoming / f"{study}.{patient}"
            for file in (folder / name for folder in waiting):
                if file.exists() and (_study(file.parent) != folder.name or file.read_bytes() != data):
                    raise Conflict("has the SOP Instance UID of a different radiograph", duplicate=True)
            folder.mkdir(exist_ok=True, mode=0o700)
            write_whole(folder / name, data)
            self._last[folder.name] = time.monotonic()

    def take_complete(self) -> list[Path]:
        """Move the studies that have been quiet to `work`; radiographs that come later make a study of their own."""
        with self._lock:
            before = time.monotonic() - self._quiet
            taken = []
            for name in [name for name, last in self._last.items() if last <= before]:
                del self._last[name]
                target = self.work / f"{_study(Path(name))}-{secrets.token_hex(4)}"
                try:
                    taken.append((self.incoming / name).rename(target))
                except FileNotFoundError:  # somebody has removed it
                    continue
            return taken

    def put_back(self, study: Path) -> None:
        """Let a study be answered again, after `retry` seconds."""
        with self._lock:
            again = study.rename(self._free(study.name))
            self._last[again.name] = time.monotonic() + self._retry - self._quiet

    def set_aside(self, study: Path) -> None:
        """Keep a study that cannot be answered."""
        study.rename(self.failed / study.name)

    def _free(self, name: str) -> Path:
        """A folder of `in` for a study, which may have got new radiographs meanwhile."""
        folder = self.incoming / _study(Path(name))
        return folder.with_name(f"{folder.name}-{secrets.token_hex(4)}") if folder.exists() else folder


def _hash(identifier: str) -> str:
    return hashlib.sha256(identifier.encode()).hexdigest()[:32]


def _study(folder: Path) -> str:
    return folder.name.partition("-")[0]
