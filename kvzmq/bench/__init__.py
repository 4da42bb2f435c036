"""Loads on a server, timed, and reports of them."""
