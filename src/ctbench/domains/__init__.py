"""Over-approximations of the outputs of a network: one file per domain.

A domain is a value (`Domain`) that bounds frozen graphs. `domain` makes one from its name, and `domains` lists all.
"""

from ctbench.domains.alpha_crown import AlphaCrown
from ctbench.domains.base import Domain, domain, domains
from ctbench.domains.coap import COAP
from ctbench.domains.crown import Crown
from ctbench.domains.crown_ibp import CrownIBP
from ctbench.domains.interval import Interval
from ctbench.domains.zonotope import Zonotope

__all__ = ["COAP", "AlphaCrown", "Crown", "CrownIBP", "Domain", "Interval", "Zonotope", "domain", "domains"]
