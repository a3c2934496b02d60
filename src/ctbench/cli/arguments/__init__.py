"""The arguments of each command, without torch: help and errors of usage are there at once."""
