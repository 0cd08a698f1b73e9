"""An answer as a structured report: DICOM Comprehensive SR after TID 1500, Measurement Report (PS3.16).

    Imaging Measurement Report
    ├── observer: this device; procedure reported
    ├── Imaging Measurements
    │   ├── the study: finding, both verdicts, agreement, familiarity; probabilities and thresholds; algorithm; images
    │   └── each view, where there are several
    ├── Similar studies, each: label, similarity, weight, and how it is known
    ├── Findings of the voting studies, each: share in the vote, number of studies
    └── Comments: what a reader has to see

What no standard code says is coded in a private scheme, which the report names.
"""

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from retrieval.answer import Answer, SimilarCase, ViewAnswer
from retrieval.datasets.pseudonyms import is_pseudonym
from retrieval.decision.findings import FindingShare
from retrieval.dicom.source_instances import Origin, read_origin
from retrieval.errors import MissingExtra
from retrieval.images.dicom_header import OWN_MODEL_NAME, DicomError
from retrieval.images.dicom_silence import be_silent
from retrieval.images.radiograph import file_and_frame
from retrieval.notices import Code as NoticeCode
from retrieval.notices import Notice
from retrieval.wording import DISCLAIMER, anonymous_sentence, label_word

try:
    from highdicom import sr
    from highdicom.coding_schemes import CodingSchemeIdentificationItem
    from pydicom.sr.coding import Code
    from pydicom.uid import generate_uid
except ImportError as error:
    raise MissingExtra(error.name or "highdicom", "dicom") from error

__all__ = ["SCHEME", "priors_of", "remarks", "structured_report"]

SCHEME = "99MURASEARCH"
SERIES_NUMBER = 9701
_RELATION = sr.RelationshipTypeValues.CONTAINS
_NO_UNITS = Code("1", "UCUM", "no units")
_FINDING = Code("121071", "DCM", "Finding")
_COMMENT = Code("121106", "DCM", "Comment")
_RADIOGRAPHY = Code("363680008", "SCT", "Radiographic imaging procedure")
_WORDS = {
    "abnormal": Code("263654008", "SCT", "Abnormal"),
    "normal": Code("17621005", "SCT", "Normal"),
    "indeterminate": Code("82334004", "SCT", "Indeterminate"),
    True: Code("373066001", "SCT", "Yes"),
    False: Code("373067005", "SCT", "No"),
    None: Code("261665006", "SCT", "Unknown"),
    "unknown": Code("261665006", "SCT", "Unknown"),
}
_OWN = {  # at most 16 and 64 characters
    "CLASSIFIER": "Verdict of the classifier",
    "VOTE": "Verdict of the vote of the nearest studies",
    "AGREEMENT": "Classifier and vote agree",
    "FAMILIAR": "Like the indexed studies",
    "BORDERLINE": "Near a threshold: mild changes could turn it",
    "CLASSIFIER-P": "Probability of abnormality, classifier",
    "CLASSIFIER-LIMIT": "Decision threshold of the classifier",
    "VOTE-P": "Probability of abnormality, vote of the nearest studies",
    "VOTE-LIMIT": "Decision threshold of the vote",
    "VOTERS": "Number of voting studies",
    "SIMILARITY": "Similarity to the nearest indexed study (cosine)",
    "FAMILIAR-LIMIT": "Least similarity of a familiar study (cosine)",
    "SIMILAR-STUDIES": "Similar studies of other patients",
    "SIMILAR-STUDY": "Similar study of another patient",
    "LABEL": "Label of the similar study",
    "WEIGHT": "Share in the vote",
    "NAME": "Name of the study in the index",
    "FINDINGS": "Findings of voting studies: to think of, no diagnosis",
    "FINDING": "Finding of voting studies",
    "STUDIES": "Number of voting studies that have the finding",
}


def structured_report(
    answer: Answer, origins: Sequence[Origin], priors: Sequence[Any] | None = None, named: bool = False
) -> Any:
    """The report of an answer, a pydicom Dataset in a new series of the query's study.

    origins: where the query's views come from, in their order. priors: of each similar case, a Dataset with its SOP
    Class, SOP Instance, Series and Study UID, to be referred to as evidence, or None. named: whether the names that the
    index has for studies are written: true only of names that are keyed hashes.

    `Finding` is indeterminate where classifier and vote disagree or the study is unlike those indexed.
    """
    be_silent()
    known = list(priors or [None] * len(answer.cases))
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=_observer(answer)),
        procedure_reported=_RADIOGRAPHY,
        imaging_measurements=_groups(answer, origins),
    )
    root = content[0].ContentSequence
    if answer.cases:
        root.append(_similar(answer.cases, known, named))
    if answer.findings:
        root.append(_findings(answer.findings))
    for remark in remarks(answer):
        root.append(sr.TextContentItem(name=_COMMENT, value=remark, relationship_type=_RELATION))
    headers = {origin.header.SOPInstanceUID: origin.header for origin in origins}
    headers |= {prior.SOPInstanceUID: prior for prior in known if prior is not None}
    return sr.ComprehensiveSR(
        evidence=list(headers.values()),
        content=content,
        series_instance_uid=generate_uid(prefix=None),
        series_number=SERIES_NUMBER,
        sop_instance_uid=generate_uid(prefix=None),
        instance_number=1,
        manufacturer=OWN_MODEL_NAME,
        manufacturer_model_name=OWN_MODEL_NAME,
        software_versions=version("mura-search"),
        device_serial_number=answer.model.sha256[:16],
        series_description="mura-search answer",
        is_complete=True,
        coding_schemes=[CodingSchemeIdentificationItem(designator=SCHEME, name="mura-search private codes")],
    )


def priors_of(cases: Sequence[SimilarCase]) -> list[Any]:
    """A reference to each similar case, read from its file; None where the file is no longer of that study."""
    return [_prior(case) if case.path else None for case in cases]


def _prior(case: SimilarCase) -> Any:
    path, frame = file_and_frame(Path(case.path))
    try:
        header = read_origin(path)
    except (DicomError, OSError):
        return None
    if header.StudyInstanceUID != case.study:
        return None
    if frame:
        header.ReferencedFrameNumber = frame
    return header


def remarks(answer: Answer) -> list[str]:
    """What a reader has to see, in sentences that name no file, patient or path."""
    lines = [DISCLAIMER]
    if answer.familiarity.familiar is False:
        lines.append(f"Unfamiliar: {'; '.join(answer.familiarity.reasons)}. Do not rely on this report.")
    if answer.agreement is False:
        lines.append("Undecided: the classifier and the vote of the nearest studies disagree.")
    numbers = _view_numbers(answer)
    notices = list(answer.notices)
    if answer.model.synthetic and not answer.index.synthetic:
        notices.append(Notice(NoticeCode.SYNTHETIC))
    for notice in notices:
        words = anonymous_sentence(notice, f"view {numbers[notice.view]}" if notice.view in numbers else "a view")
        lines.append(f"{words[:1].upper()}{words[1:]}.")
    if answer.unnamed_patients:
        lines.append("The studies of the query's own patient are left out.")
    return list(dict.fromkeys(lines))


def _view_numbers(answer: Answer) -> dict[str, int]:
    """The number of each view by its name and, where it is the first frame of one, by the name of its file."""
    numbers: dict[str, int] = {}
    for number, file in enumerate(answer.query.files, start=1):
        numbers.setdefault(file, number)
        numbers.setdefault(str(file_and_frame(Path(file))[0]), number)
    return numbers


def _observer(answer: Answer) -> Any:
    return sr.ObserverContext(
        observer_type=Code("121007", "DCM", "Device"),
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=f"2.25.{uuid5(NAMESPACE_URL, answer.model.sha256).int}",  # the same model is the same observer
            name=f"mura-search {answer.model.name}",
            manufacturer_name=OWN_MODEL_NAME,
            model_name=OWN_MODEL_NAME,
            serial_number=answer.model.sha256[:16],
        ),
    )


def _groups(answer: Answer, origins: Sequence[Origin]) -> list[Any]:
    """The measurement groups: the study's and, if it has several views, each view's."""

    def group(name: str, measurements: Iterable[Any], images: Sequence[Origin], evaluations: Any = None) -> Any:
        return sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(uid=generate_uid(prefix=None), identifier=name),
            algorithm_id=_algorithm(answer),
            measurements=list(measurements),
            qualitative_evaluations=evaluations,
            source_images=_images(images),
        )

    groups = [group("study", _study_measurements(answer), origins, _evaluations(answer))]
    if len(answer.views) > 1:
        for number, (view, origin) in enumerate(zip(answer.views, origins, strict=True), start=1):
            groups.append(group(f"view {number}", _view_measurements(view), [origin]))
    return groups


def _algorithm(answer: Answer) -> Any:
    return sr.AlgorithmIdentification(
        name=f"mura-search {answer.model.name}",
        version=version("mura-search"),
        parameters=[
            f"model bundle SHA-256 {answer.model.sha256}",
            f"index of {answer.index.cases} radiographs, {answer.index.studies} studies",
            f"k {answer.knn.k}",
        ],
    )


def _study_measurements(answer: Answer) -> list[Any]:
    """Both probabilities with their thresholds, the number of voters, and familiarity with its limit."""
    vote, familiarity = answer.knn, answer.familiarity
    return _measurements(
        ("CLASSIFIER-P", answer.classifier.probability),
        ("CLASSIFIER-LIMIT", answer.classifier.threshold),
        ("VOTE-P", vote.probability),
        ("VOTE-LIMIT", vote.threshold),
        ("VOTERS", vote.k),
        ("SIMILARITY", familiarity.similarity),
        ("FAMILIAR-LIMIT", familiarity.limit),
    )


def _view_measurements(view: ViewAnswer) -> list[Any]:
    return _measurements(("CLASSIFIER-P", view.classifier), ("VOTE-P", view.knn), ("SIMILARITY", view.similarity))


def _measurements(*values: tuple[str, float | None]) -> list[Any]:
    """A measurement for each value that is known."""
    return [
        sr.Measurement(name=_code(name), value=value, unit=_NO_UNITS) for name, value in values if value is not None
    ]


def _evaluations(answer: Answer) -> list[Any]:
    sure = answer.agreement is not False and answer.familiarity.familiar is not False
    classifier, vote = label_word(answer.classifier.abnormal), label_word(answer.knn.abnormal)
    evaluations = (
        (_FINDING, classifier if sure else "indeterminate"),
        (_code("CLASSIFIER"), classifier),
        (_code("VOTE"), vote),
        (_code("AGREEMENT"), answer.agreement),
        (_code("FAMILIAR"), answer.familiarity.familiar),
        (_code("BORDERLINE"), answer.borderline),
    )
    return [sr.QualitativeEvaluation(name=name, value=_WORDS[value]) for name, value in evaluations]


def _images(origins: Sequence[Origin]) -> list[Any]:
    frames: dict[str, list[int]] = {}
    for origin in origins:
        frames.setdefault(origin.header.SOPInstanceUID, []).append(origin.frame)
    classes = {origin.header.SOPInstanceUID: origin.header.SOPClassUID for origin in origins}
    return [
        sr.SourceImageForMeasurementGroup(classes[image], image, [number for number in numbers if number] or None)
        for image, numbers in frames.items()
    ]


def _similar(cases: Sequence[SimilarCase], priors: Sequence[Any], named: bool) -> Any:
    whole = sr.ContainerContentItem(name=_code("SIMILAR-STUDIES"), relationship_type=_RELATION)
    whole.ContentSequence = sr.ContentSequence()
    for case, prior in zip(cases, priors, strict=True):
        item = sr.ContainerContentItem(name=_code("SIMILAR-STUDY"), relationship_type=_RELATION)
        item.ContentSequence = sr.ContentSequence(
            [
                sr.CodeContentItem(_code("LABEL"), _WORDS[case.label], relationship_type=_RELATION),
                sr.NumContentItem(_code("SIMILARITY"), case.similarity, _NO_UNITS, relationship_type=_RELATION),
                sr.NumContentItem(_code("WEIGHT"), case.weight, _NO_UNITS, relationship_type=_RELATION),
            ]
        )
        if prior is not None:
            frame = prior.get("ReferencedFrameNumber")
            reference = sr.ImageContentItem(
                _code("SIMILAR-STUDY"), prior.SOPClassUID, prior.SOPInstanceUID,
                referenced_frame_numbers=None if frame is None else int(frame), relationship_type=_RELATION,
            )  # fmt: skip
            item.ContentSequence.append(reference)
        elif named and is_pseudonym(case.study):
            item.ContentSequence.append(sr.TextContentItem(_code("NAME"), case.study, relationship_type=_RELATION))
        whole.ContentSequence.append(item)
    return whole


def _findings(findings: Sequence[FindingShare]) -> Any:
    whole = sr.ContainerContentItem(name=_code("FINDINGS"), relationship_type=_RELATION)
    whole.ContentSequence = sr.ContentSequence()
    for share in findings:
        item = sr.ContainerContentItem(name=_code("FINDING"), relationship_type=_RELATION)
        item.ContentSequence = sr.ContentSequence(
            [
                sr.TextContentItem(_FINDING, share.finding, relationship_type=_RELATION),
                sr.NumContentItem(_code("WEIGHT"), share.weight, _NO_UNITS, relationship_type=_RELATION),
                sr.NumContentItem(_code("STUDIES"), share.studies, _NO_UNITS, relationship_type=_RELATION),
            ]
        )
        whole.ContentSequence.append(item)
    return whole


def _code(name: str) -> Code:
    return Code(name, SCHEME, _OWN[name])
