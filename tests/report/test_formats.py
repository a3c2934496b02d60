"""Tables as Markdown, CSV and LaTeX."""

from ctbench.report.formats import as_csv, as_latex, as_markdown
from ctbench.report.grid import Bold

HEADINGS = ("method", "certified %")
ROWS = [["a|b & c_1", Bold("94.03 ± 0.31")], ["x\ny\\z", "-"]]


def test_markdown_keeps_a_table_a_table():
    assert as_markdown(HEADINGS, ROWS, texts=(0,)).splitlines() == [
        "| method | certified % |",
        "| --- | ---: |",
        r"| a\|b & c_1 | **94.03 ± 0.31** |",
        r"| x y\z | - |",
    ]


def test_latex_is_a_booktabs_table_with_escaped_texts():
    assert as_latex(HEADINGS, ROWS, texts=(0,)).splitlines()[1:] == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"method & certified \% \\",
        r"\midrule",
        r"a|b \& c\_1 & \textbf{94.03 $\pm$ 0.31} \\",
        r"x y\textbackslash{}z & - \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_csv_quotes_what_needs_it():
    assert as_csv(("a", "b"), [["1,2", 'x"y']]) == 'a,b\n"1,2","x""y"\n'
