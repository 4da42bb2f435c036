"""Programs' view of a stopped or copied table: check it, repair it, read its log."""
