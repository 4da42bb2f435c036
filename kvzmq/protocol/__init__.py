"""What travels: messages, their MessagePack and JSON-lines encodings, and what is accepted. No I/O, no zmq."""
