"""Tools on a table's files, without serving it: check them, repair them, read the log."""
