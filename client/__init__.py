"""The boot client: what a technician sees."""
