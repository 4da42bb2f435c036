"""What the blocking and the asyncio client have in common, as pure values: no sockets, no clock, no threads."""
