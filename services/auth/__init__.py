"""Lets technicians in."""
