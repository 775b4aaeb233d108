"""A deployment server that is one SQLite file, and the engine that reaches it."""
