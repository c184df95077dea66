"""What of a DICOM header may stand in a file that is handed on: a list of what is kept, never of what is removed.

Everything else goes: text, names, identifiers, dates, times, UIDs, private elements, unknown elements, and sequences
that are not named here. That is stricter than the Basic Application Confidentiality Profile (PS3.15 Annex E), which
names what to remove, and it holds for elements that no profile foresaw.
"""

from __future__ import annotations

import re

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

__all__ = ["kept_elements"]

_NUMBERS = frozenset(
    """
    SamplesPerPixel PlanarConfiguration NumberOfFrames Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation
    PixelSpacing PixelAspectRatio ImagerPixelSpacing NominalScannedPixelSpacing PixelPaddingValue PixelPaddingRangeLimit
    RescaleIntercept RescaleSlope WindowCenter WindowWidth LossyImageCompressionRatio PixelIntensityRelationshipSign
    ImagePositionPatient ImageOrientationPatient SliceLocation SliceThickness SpacingBetweenSlices ImagesInAcquisition
    FrameIncrementPointer FrameTime FrameTimeVector EnergyWindowVector DetectorVector PhaseVector RotationVector
    RRIntervalVector TimeSlotVector SliceVector AngularViewVector TimeSliceVector
    KVP DataCollectionDiameter ReconstructionDiameter DistanceSourceToDetector DistanceSourceToPatient
    GantryDetectorTilt TableHeight ExposureTime XRayTubeCurrent Exposure ExposureInuAs GeneratorPower FocalSpots
    RevolutionTime SingleCollimationWidth TotalCollimationWidth TableSpeed TableFeedPerRotation SpiralPitchFactor
    CTDIvol
    RepetitionTime EchoTime EchoTrainLength EchoNumbers InversionTime FlipAngle NumberOfAverages ImagingFrequency
    MagneticFieldStrength NumberOfPhaseEncodingSteps PercentSampling PercentPhaseFieldOfView PixelBandwidth
    AcquisitionMatrix SAR
    EstimatedRadiographicMagnificationFactor BodyPartThickness CompressionForce RelativeXRayExposure FieldOfViewOrigin
    FieldOfViewDimensions FieldOfViewRotation PositionerPrimaryAngle PositionerSecondaryAngle
    MechanicalIndex TransducerFrequency DepthOfScanField
    NumberOfSlices NumberOfTimeSlices ImageIndex FrameReferenceTime DecayFactor ActualFrameDuration
    SliceSensitivityFactor
    RegionSpatialFormat RegionDataType RegionFlags RegionLocationMinX0 RegionLocationMinY0 RegionLocationMaxX1
    RegionLocationMaxY1 ReferencePixelX0 ReferencePixelY0 PhysicalUnitsXDirection PhysicalUnitsYDirection
    PhysicalDeltaX PhysicalDeltaY
    LUTDescriptor LUTData
    """.split()  # noqa: SIM905 - a hundred quoted words are harder to read
)

_SIDES = ("A", "P", "L", "R", "H", "F", "AL", "AR", "PL", "PR", "LA", "RA", "LP", "RP", "HL", "HR", "FL", "FR", "AH",
          "AF", "PH", "PF", "HA", "FA", "HP", "FP", "LH", "LF", "RH", "RF")  # fmt: skip

_TERMS: dict[str, tuple[str, ...]] = {
    "Modality": ("CT", "MR", "CR", "DX", "MG", "US", "PT", "NM", "XA", "RF", "OT", "SC", "IO", "PX", "ES", "XC", "OP",
                 "GM", "SM"),
    "PhotometricInterpretation": ("MONOCHROME1", "MONOCHROME2", "RGB"),
    "VOILUTFunction": ("LINEAR", "LINEAR_EXACT", "SIGMOID"),
    "PresentationLUTShape": ("IDENTITY", "INVERSE"),
    "RescaleType": ("HU", "HU_MOD", "OD", "US", "MGML", "PCT", "Z_EFF", "ED", "EDW"),
    "PixelIntensityRelationship": ("LIN", "LOG", "DISP", "OTHER"),
    "PresentationIntentType": ("FOR PRESENTATION", "FOR PROCESSING"),
    "LossyImageCompression": ("00", "01"),
    "LossyImageCompressionMethod": ("ISO_10918_1", "ISO_14495_1", "ISO_15444_1", "ISO_13818_2", "ISO_14496_10",
                                    "ISO_23008_2"),
    "BurnedInAnnotation": ("NO",),
    "RecognizableVisualFeatures": ("NO", "YES"),
    "PatientPosition": ("HFS", "HFP", "HFDR", "HFDL", "FFS", "FFP", "FFDR", "FFDL", "LFP", "LFS", "RFP", "RFS", "AFDR",
                        "AFDL", "PFDR", "PFDL"),
    "PatientOrientation": _SIDES,
    "Laterality": ("L", "R"),
    "ImageLaterality": ("L", "R", "U", "B"),
    "ViewPosition": ("AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO", "MLO", "CC", "ML", "LM", "LMO", "LLAT",
                     "RLAT"),
    "BodyPartExamined": ("ABDOMEN", "ANKLE", "ARM", "BLADDER", "BRAIN", "BREAST", "CHEST", "CSPINE", "ELBOW", "EYE",
                         "FEMUR", "FOOT", "HAND", "HEAD", "HEART", "HIP", "KIDNEY", "KNEE", "LEG", "LIVER", "LSPINE",
                         "LUNG", "NECK", "PANCREAS", "PELVIS", "PROSTATE", "RIB", "SHOULDER", "SKULL", "SPINE",
                         "SSPINE", "TSPINE", "UTERUS", "WHOLEBODY", "WRIST"),
    "ScanningSequence": ("SE", "IR", "GR", "EP", "RM"),
    "SequenceVariant": ("SK", "MTC", "SS", "TRSS", "SP", "MP", "OSP", "NONE"),
    "ScanOptions": ("PER", "RG", "CG", "PPG", "FC", "PFF", "PFP", "SP", "FS"),
    "MRAcquisitionType": ("2D", "3D"),
    "InPlanePhaseEncodingDirection": ("ROW", "COL"),
    "RotationDirection": ("CW", "CC"),
    "ExposureModulationType": ("NONE",),
    "ConversionType": ("DV", "DI", "DF", "WSD", "SD", "SI", "DRW", "SYN"),
    "Units": ("CNTS", "NONE", "CM2", "CM2ML", "PCNT", "CPS", "BQML", "MGMINML", "UMOLMINML", "MLMING", "MLG", "1CM",
              "UMOLML", "PROPCNTS", "PROPCPS", "MLMINML", "MLML", "GML", "STDDEV"),
    "CorrectedImage": ("DECY", "ATTN", "SCAT", "DTIM", "MOTN", "PMOT", "CLN", "RAN", "RADL", "DCAL", "NORM"),
    "CountsSource": ("EMISSION", "TRANSMISSION"),
    "DecayCorrection": ("NONE", "START", "ADMIN"),
    "RandomsCorrectionMethod": ("NONE", "DLYD", "SING"),
    "PositionerType": ("CARM", "COLUMN", "MAMMOGRAPHIC", "PANORAMIC", "CEPHALOSTAT", "RIGID", "NONE"),
    "DetectorType": ("DIRECT", "SCINTILLATOR", "STORAGE", "FILM"),
}  # fmt: skip
"""Attributes whose values are terms of the standard, with those terms; another word there may be anybody's text."""

_SEQUENCES = ("VOILUTSequence", "SequenceOfUltrasoundRegions")

# Type 2 in the modules of most image objects: present, and empty here.
_EMPTY_WHERE_PRESENT = frozenset(
    """
    AcquisitionNumber KVP Laterality PatientOrientation PositionReferenceIndicator BodyPartExamined ViewPosition
    ScanOptions EchoTime EchoTrainLength MRAcquisitionType RepetitionTime RadiopharmaceuticalInformationSequence
    PatientPosition AcquisitionContextSequence
    """.split()  # noqa: SIM905 - a hundred quoted words are harder to read
)

_NUMERIC = ("DS", "IS", "FD", "FL", "US", "SS", "UL", "SL", "OW", "US or SS", "US or OW", "AT")
_FLAVOUR = ("AXIAL", "LOCALIZER", "REFORMATTED", "MPR", "OTHER", "WHOLE BODY", "STATIC", "DYNAMIC", "GATED", "TOMO",
            "RECON TOMO")  # fmt: skip
_PLAIN_NUMBER = re.compile(r"\s*[-+]?\d{0,7}(\.\d{0,16})?([eE][-+]?\d{1,3})?\s*")  # a date has eight digits


def kept_elements(ds: Dataset) -> Dataset:
    """A new data set of what may be kept, value by value; of the image type, a third value that is a known one."""
    kept = _kept(ds)
    flavour = list(ds.get("ImageType") or [])[2:3]
    kept.ImageType = ["DERIVED", "SECONDARY", *(f for f in flavour if f in _FLAVOUR)]
    for keyword in _EMPTY_WHERE_PRESENT:
        if keyword in ds and keyword not in kept:
            setattr(kept, keyword, [] if keyword.endswith("Sequence") else None)
    if "BodyPartExamined" in kept and not kept.BodyPartExamined and "Laterality" not in kept:
        kept.Laterality = None  # the part may be one of a pair (Type 2C)
    return kept


def _kept(ds: Dataset) -> Dataset:
    kept = Dataset()
    for element in ds:
        if element.tag.is_private:
            continue
        keyword = element.keyword
        if keyword in _SEQUENCES:
            kept.add_new(element.tag, "SQ", Sequence([_kept(item) for item in element.value]))
        elif (keyword in _NUMBERS and _is_number(element)) or (keyword in _TERMS and _is_term(element)):
            kept.add(element)
    return kept


def _is_number(element: DataElement) -> bool:
    """Whether it holds numbers alone: a string of digits longer than any measurement may be an identifier."""
    if element.VR not in _NUMERIC:
        return False
    if element.VR not in ("DS", "IS"):
        return True
    values = [element.value] if element.VM == 1 else list(element.value or [])
    return all(_PLAIN_NUMBER.fullmatch(getattr(v, "original_string", str(v))) for v in values)


def _is_term(element: DataElement) -> bool:
    values = [element.value] if element.VM == 1 else list(element.value or [])
    return all(str(v) in _TERMS[element.keyword] for v in values)
