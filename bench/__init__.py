"""Figures of how fast and how large ImageInvoker is, each against a bare way to do the same."""
