"""Changes that readers make: a study filed, a label corrected, a study set aside. Each can be undone.

    with FilingWriter.open(path) as writer:
        filed = writer.correct("s1", 1, "fracture seen on CT")
        writer.undo(filed.generation)

Each change is one transaction, with an entry in the history and one in the table `filed`, which holds what undoing it
needs. When a patient is removed or a record is corrected otherwise, the entries that name its radiographs are removed.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.case import LABEL_NAMES, Case
from index.errors import ChangeRefused
from index.filed import Filed, change_of
from index.sqlite.reader import Extras
from index.sqlite.writer import CaseWriter, now
from index.vectors.base import require_one_each
from index.writer import IndexWriter

__all__ = ["FilingWriter"]


class FilingWriter(IndexWriter):
    """An index opened for writing as `IndexWriter` opens it, with changes that can be undone.

    Raises ChangeRefused, and changes nothing, for what is refused.
    """

    def file(
        self,
        cases: Sequence[Case],
        embeddings: NDArray[np.float32],
        thumbnails: Sequence[bytes],
        logits: NDArray[np.float32],
        *,
        note: str = "",
        extras: Extras | None = None,
    ) -> Filed:
        """Add one study of n cases as `IndexWriter.add` does. embeddings (n, D) of unit length.

        Raises ChangeRefused if the study or one of the files is indexed already.
        """
        require_one_each(cases, embeddings, thumbnails, logits, self._dimension)
        study = cases[0].study
        with self._change():
            if self._database.cases_where("study", [study]):
                raise ChangeRefused(f"the index holds a study {study} already; give another name")
            digests = {case.digest for case in cases} - {""}
            if same := list(self._database.cases_where("digest", digests).values()):
                raise ChangeRefused(
                    f"this radiograph is indexed already, as study {same[0].study}; correct the label of that study"
                )
            self._database.insert(cases, embeddings, thumbnails, logits, extras)
            self._database.record("file", {"cases": len(cases)}, len(cases))
            self._database.require_whole_studies(cases)
            return _keep(self._database, "file", cases, label=cases[0].label_name, note=note)

    def correct(self, study: str, label: int, note: str = "") -> Filed | None:
        """Give a study a label as `relabel` does; None if it has this label already."""
        name = LABEL_NAMES[label]
        with self._change():
            records = self._of_study(study)
            cases = list(records.values())
            if not self._relabel(records, label):
                return None
            return _keep(self._database, "relabel", cases, former=cases[0].label_name, label=name, note=note)

    def set_aside(self, study: str, reason: str) -> Filed:
        """Take a study out of every search and vote. Its radiographs are listed as set aside, with the reason."""
        with self._change():
            records = self._of_study(study)
            batch = self._database.study(study, self._dimension)
            self._database.remove(list(records), "set-aside")
            self._database.quarantine([(case, reason) for case in batch.cases])
            content = {
                "records": [asdict(case) for case in batch.cases],
                "vectors": [_text(vector.astype("<f4").tobytes()) for vector in batch.embeddings],
                "images": [_text(image) for image in batch.thumbnails],
                "logits": batch.logits.tolist(),
                "extras": {table: [_text(data) for data in of_cases] for table, of_cases in batch.extras.items()},
            }
            former = batch.cases[0].label_name
            return _keep(self._database, "set-aside", batch.cases, former=former, note=reason, content=content)

    def undo(self, generation: int | None = None) -> Filed:
        """Undo a change that is not undone yet, by default the last one.

        Raises ChangeRefused for a change that cannot be undone, and if its study was changed since.
        """
        with self._change():
            entries = self._database.filed()
            number = max(entries, default=0) if generation is None else generation
            if number not in entries:
                fault = "there is nothing to undo" if generation is None else f"change {number} cannot be undone"
                raise ChangeRefused(f"{fault}; mura-search index filed lists the changes that can be")
            entry = json.loads(entries[number])
            {"file": self._undo_file, "relabel": self._undo_relabel, "set-aside": self._undo_set_aside}[
                entry["action"]
            ](entry)
            self._database.forget_filed([number])
            return change_of(number, entry)

    def _undo_file(self, entry: Mapping[str, Any]) -> None:
        rows = self._unchanged(entry)
        self._database.remove(rows, "undo")
        self._database.set_metadata(erased=True)

    def _undo_relabel(self, entry: Mapping[str, Any]) -> None:
        self._unchanged(entry)
        self._relabel(self._of_study(entry["study"]), LABEL_NAMES.index(entry["former"]), "undo")

    def _undo_set_aside(self, entry: Mapping[str, Any]) -> None:
        cases = [Case(**record) for record in entry["records"]]
        if known := self._database.cases_where("case", [case.case for case in cases]):
            raise ChangeRefused(f"radiograph {next(iter(known.values())).case} is indexed again; remove it first")
        vectors = [np.frombuffer(_bytes(vector), "<f4") for vector in entry["vectors"]]
        images, logits = [_bytes(image) for image in entry["images"]], np.array(entry["logits"], np.float32)
        extras = {table: [_bytes(data) for data in of_cases] for table, of_cases in entry["extras"].items()}
        self._database.insert(cases, np.stack(vectors), images, logits, extras)
        self._database.record("undo", {"cases": len(cases)}, len(cases))
        try:
            self._database.require_whole_studies(cases)
        except ValueError as error:
            raise ChangeRefused(f"{error}; correct that first") from error

    def _of_study(self, study: str) -> dict[int, Case]:
        records = self._database.cases_where("study", [study])
        if not records:
            raise ChangeRefused(f"the index holds no study {study}; mura-search index list shows what it holds")
        return records

    def _unchanged(self, entry: Mapping[str, Any]) -> list[int]:
        """The rows of an entry's cases, if its study is as the change left it."""
        records = self._database.cases_where("study", [entry["study"]])
        as_left = {case.case for case in records.values()} == set(entry["names"])
        if not as_left or any(case.label_name != entry["label"] for case in records.values()):
            raise ChangeRefused(f"study {entry['study']} was changed since; undo the later change first")
        return list(records)


def _keep(
    database: CaseWriter,
    action: str,
    cases: Sequence[Case],
    *,
    former: str = "",
    label: str = "",
    note: str = "",
    content: Mapping[str, object] | None = None,
) -> Filed:
    """Note in the transaction of a change of one study's cases what undoing it needs."""
    entry = {"action": action, "at": now(), "study": cases[0].study, "names": [case.case for case in cases]}
    entry |= {"former": former, "label": label, "note": note, "finding": cases[0].finding}
    generation = database.generation()
    database.keep_filed(generation, json.dumps(entry | dict(content or {})).encode())
    return change_of(generation, entry)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)
