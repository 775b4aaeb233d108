"""Turns an accepted request into scheduled jobs, exactly once."""
