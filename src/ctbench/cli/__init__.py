"""The command line: one file per command, which parses, calls the library and prints."""

from ctbench.cli.main import main

__all__ = ["main"]
