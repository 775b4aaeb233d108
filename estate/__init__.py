"""The estate: its keys, its sites, and what everybody may do on its buses."""
