"""Measured results as files: records are appended and never changed. Imports nothing of ours, and no torch."""

from ctbench.results.certification import Certification, SampleRecord, Verdict
from ctbench.results.published import Published
from ctbench.results.runs import CertificationFiles, RunFolder

__all__ = ["Certification", "CertificationFiles", "Published", "RunFolder", "SampleRecord", "Verdict"]
