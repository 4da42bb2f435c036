"""How `kvzmq server` is built from its options and run: the only place that joins every part of a server."""
