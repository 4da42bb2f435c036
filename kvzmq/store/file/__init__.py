"""The log in a directory: table.txn, table.ckpt, and their compaction."""
