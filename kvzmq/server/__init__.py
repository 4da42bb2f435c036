"""The server: one loop, a serial dispatcher, watches, transports."""
