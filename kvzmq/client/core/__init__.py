"""What both clients share: sessions, requests, values, watches. No event loop, no threads."""
