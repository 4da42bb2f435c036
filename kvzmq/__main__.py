"""`python -m kvzmq` is the command `kvzmq`."""

from kvzmq.cli import main

main(prog_name="kvzmq")
