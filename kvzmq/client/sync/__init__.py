"""The blocking client: threads of one process share a connection."""
