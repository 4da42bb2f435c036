"""One file per group of commands, loaded when a command is first used."""
