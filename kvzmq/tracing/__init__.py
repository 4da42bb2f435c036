"""The interleave trace: written by the server, read and summarized by tools."""
