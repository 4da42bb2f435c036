"""`kvzmq top`: a server's figures, live in the terminal.

watching    the loop: asks the server once an interval, reads keys, draws
gathering   what is asked, and what became of it: figures, alarms, a sample of the requests
view        what the keys choose: order, filter, pause; no I/O
drawing     the lines of one picture, from figures and view; no I/O
screen      the terminal: raw keys, the alternate screen, its size, and its state given back
"""
