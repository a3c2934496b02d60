"""VNN-LIB 1.0: properties of networks as text (Demarchi et al., FoMLAS 2023; https://www.vnnlib.org).

A file describes the counterexamples. The property holds if no input x with its output y = f(x) satisfies all asserts:

    (declare-const X_0 Real) (declare-const Y_0 Real) (declare-const Y_1 Real)     ; comments end with the line
    (assert (>= X_0 -0.5)) (assert (<= X_0 0.5))
    (assert (or (and (>= Y_1 Y_0))))

`and` and `or` nest, comparisons are linear. The reader returns the disjunctive normal form, sorted by input boxes:

    x, y is a counterexample  iff  some case has  lower <= x <= upper  and some (A, b) in unsafe with  A y + b <= 0

`<` and `>` exclude the edge of a box or of a row.

    prop = read_vnnlib("instance.vnnlib.gz")
    write_robustness("instance.vnnlib.gz", x - eps, x + eps, y=3, classes=10)
"""

from ctbench.vnnlib.halfspaces import Halfspaces, Row
from ctbench.vnnlib.property import Case, Property, RealBox, robustness
from ctbench.vnnlib.reading import VnnlibError, parse_vnnlib, read_vnnlib
from ctbench.vnnlib.variables import Declared, Network
from ctbench.vnnlib.writing import write_property, write_robustness

__all__ = [
    "Case",
    "Declared",
    "Halfspaces",
    "Network",
    "Property",
    "RealBox",
    "Row",
    "VnnlibError",
    "parse_vnnlib",
    "read_vnnlib",
    "robustness",
    "write_property",
    "write_robustness",
]
