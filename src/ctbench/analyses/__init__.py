"""Analyses: one question per file."""
