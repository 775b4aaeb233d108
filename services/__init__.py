"""The services of a site."""
