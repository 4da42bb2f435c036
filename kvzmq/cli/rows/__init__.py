"""Rows that go from one place to another: `kvzmq export`, `import`, `copy`, and `check --repair`.

lines     a row as a line of JSON, both ways; the count at the end of a file
sources   rows out of a server or a directory
batches   rows into a server
"""
