"""The table and the log that it is made from. Knows no sockets, loads no zmq."""
