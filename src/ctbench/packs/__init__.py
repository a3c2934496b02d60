"""Packs: a run with its records in one file, and the check of a pack or a run.

pack("runs/mine", "mine.zip")
for claim in check("mine.zip"):
    print(claim)                    # ok  certified/linf-0.1.jsonl: ...
"""

from ctbench.packs.archive import PackError
from ctbench.packs.checking import Check, check
from ctbench.packs.claims import Claim
from ctbench.packs.packing import pack

__all__ = ["Check", "Claim", "PackError", "check", "pack"]
