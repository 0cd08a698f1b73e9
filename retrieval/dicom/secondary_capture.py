"""A heatmap over its radiograph as DICOM: a Secondary Capture in the study of the radiograph."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.dicom.source_instances import Origin
from retrieval.errors import MissingExtra
from retrieval.images.dicom_header import OWN_MODEL_NAME
from retrieval.images.dicom_silence import be_silent
from retrieval.wording import DISCLAIMER

try:
    from highdicom import CoordinateSystemNames
    from highdicom.sc import SCImage
    from pydicom import Dataset
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid
except ImportError as error:
    raise MissingExtra(error.name or "highdicom", "dicom") from error

__all__ = ["secondary_capture"]

SERIES_NUMBER = 9702
_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")


def secondary_capture(
    overlay: NDArray[np.uint8], origin: Origin, *, study: Any, series: str, number: int, software: str
) -> Any:
    """The overlay (H, W, 3) BGR of one view as a pydicom Dataset, instance `number` of `series`.

    study: the header that patient and study are copied from, the same for a whole series. The capture refers to its
    radiograph, says how it was derived, and repeats what the radiograph says of burnt-in text and lossy compression.
    """
    be_silent()
    header = origin.header
    capture = SCImage(
        pixel_array=np.ascontiguousarray(overlay[:, :, ::-1]), photometric_interpretation="RGB", bits_allocated=8,
        coordinate_system=CoordinateSystemNames.PATIENT, study_instance_uid=study.StudyInstanceUID,
        series_instance_uid=series, series_number=SERIES_NUMBER, sop_instance_uid=generate_uid(prefix=None),
        instance_number=number, manufacturer=OWN_MODEL_NAME, manufacturer_model_name=OWN_MODEL_NAME,
        software_versions=software, patient_id=study.PatientID, patient_name=study.PatientName,
        patient_birth_date=study.PatientBirthDate, patient_sex=study.PatientSex,
        accession_number=study.AccessionNumber, study_id=study.StudyID, study_date=study.StudyDate,
        study_time=study.StudyTime, referring_physician_name=study.ReferringPhysicianName,
        series_description="mura-search heatmap", patient_orientation=("L", "F"),
        specific_character_set="ISO_IR 192",
    )  # fmt: skip
    capture.copy_patient_and_study_information(study)
    capture.Laterality = study.get("Laterality", "")
    capture.PatientOrientation = ""  # it is unknown
    capture.ConversionType = "SYN"
    capture.DerivationDescription = (
        "Heatmap of where the classifier looks, painted over the radiograph. It is as strong as the probability; "
        f"nothing is drawn below the threshold. It does not outline a lesion. {DISCLAIMER}"
    )
    capture.SourceImageSequence = [_source(origin)]
    if "BurnedInAnnotation" in header:
        capture.BurnedInAnnotation = header.BurnedInAnnotation
    if header.get("LossyImageCompression") == "01":
        for keyword in _LOSSY:
            if keyword in header:
                setattr(capture, keyword, header[keyword].value)
    return capture


def _source(origin: Origin) -> Any:
    source, purpose = Dataset(), Dataset()
    source.ReferencedSOPClassUID = origin.header.SOPClassUID
    source.ReferencedSOPInstanceUID = origin.header.SOPInstanceUID
    if origin.frame:
        source.ReferencedFrameNumber = origin.frame
    code = codes.DCM.SourceImageForImageProcessingOperation
    purpose.CodeValue, purpose.CodeMeaning, purpose.CodingSchemeDesignator = code.value, code.meaning, "DCM"
    source.PurposeOfReferenceCodeSequence = [purpose]
    return source
