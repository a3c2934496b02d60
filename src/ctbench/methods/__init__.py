"""Training methods: one paper per file."""

from ctbench.methods.arow import ARoW
from ctbench.methods.base import Batch, Method, RobustLoss, methods
from ctbench.methods.coap import COAP
from ctbench.methods.colt import COLT
from ctbench.methods.crown_ibp import CrownIBP
from ctbench.methods.edac import EDAC
from ctbench.methods.ibp import IBP
from ctbench.methods.ibp_r import IBPR
from ctbench.methods.line_search import LineSearchTraining
from ctbench.methods.mart import MART
from ctbench.methods.mtl_ibp import CCIBP, MTLIBP, ExpIBP
from ctbench.methods.pgd import PGD
from ctbench.methods.sabr import SABR
from ctbench.methods.sam import SAM
from ctbench.methods.smoothing import WeightSmoothing
from ctbench.methods.standard import Standard
from ctbench.methods.taps import TAPS

__all__ = [
    "CCIBP",
    "COAP",
    "COLT",
    "EDAC",
    "IBP",
    "IBPR",
    "MART",
    "MTLIBP",
    "PGD",
    "SABR",
    "SAM",
    "TAPS",
    "ARoW",
    "Batch",
    "CrownIBP",
    "ExpIBP",
    "LineSearchTraining",
    "Method",
    "RobustLoss",
    "Standard",
    "WeightSmoothing",
    "methods",
]
