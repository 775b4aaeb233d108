"""Boot images: what a technician starts a PC with."""
