"""Results as files: records are appended and never changed. Does not import other packages of ctbench, or torch."""

from ctbench.results.analysed import AnalysisFiles, Layout, Measurement, Measurements, PartRecord, Summary
from ctbench.results.certification import Certification, SampleRecord
from ctbench.results.failures import Failure, StageFailedWarning
from ctbench.results.published import Published
from ctbench.results.runs import CertificationFiles, RunFolder
from ctbench.results.verdicts import OUTCOMES, Open, Verdict

__all__ = [
    "OUTCOMES",
    "AnalysisFiles",
    "Certification",
    "CertificationFiles",
    "Failure",
    "Layout",
    "Measurement",
    "Measurements",
    "Open",
    "PartRecord",
    "Published",
    "RunFolder",
    "SampleRecord",
    "StageFailedWarning",
    "Summary",
    "Verdict",
]
