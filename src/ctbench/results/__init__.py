"""Results as files: records are appended and never changed. Does not import other packages of ctbench, or torch."""

from ctbench.results.agreement import Agreement, certification_of, compare_certifications, expected_counts
from ctbench.results.analysed import AnalysisFiles, Layout, Measurement, Measurements, PartRecord, Summary
from ctbench.results.attacked import Attacked, read_attacked
from ctbench.results.certification import Certification, SampleRecord
from ctbench.results.failures import Failure, StageFailedWarning
from ctbench.results.generalisation import CorruptionRecord, Generalisation, append_corruptions, read_corruptions
from ctbench.results.published import Published, PublishedResult, published_result, published_results
from ctbench.results.radii import Radii, RadiusFiles, SampleRadius
from ctbench.results.runs import CertificationFiles, RunFolder
from ctbench.results.studies import Study, StudyFolder, TrialRecord
from ctbench.results.verdicts import OUTCOMES, Open, Verdict

__all__ = [
    "OUTCOMES",
    "Agreement",
    "AnalysisFiles",
    "Attacked",
    "Certification",
    "CertificationFiles",
    "CorruptionRecord",
    "Failure",
    "Generalisation",
    "Layout",
    "Measurement",
    "Measurements",
    "Open",
    "PartRecord",
    "Published",
    "PublishedResult",
    "Radii",
    "RadiusFiles",
    "RunFolder",
    "SampleRadius",
    "SampleRecord",
    "StageFailedWarning",
    "Study",
    "StudyFolder",
    "Summary",
    "TrialRecord",
    "Verdict",
    "append_corruptions",
    "certification_of",
    "compare_certifications",
    "expected_counts",
    "published_result",
    "published_results",
    "read_attacked",
    "read_corruptions",
]
