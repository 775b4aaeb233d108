"""The portal: the screens a technician sees at boot, and the way through them."""
