"""The interleave trace: written by the server, parsed and summarized by `kvzmq trace`."""
