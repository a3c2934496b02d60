"""A report as static pages: a leaderboard, fronts and curves, agreements, and a page for each run. Needs jinja2.

write_report([subject(RunFolder(path), path.name)], Path("report"))
"""

from ctbench.report.site.measured import AnalysisView
from ctbench.report.site.study_subject import StudySubject
from ctbench.report.site.subjects import SampleImages, Subject, page_names
from ctbench.report.site.writing import check_out, environment, write_report

__all__ = [
    "AnalysisView",
    "SampleImages",
    "StudySubject",
    "Subject",
    "check_out",
    "environment",
    "page_names",
    "write_report",
]
