"""The asyncio client: tasks of one event loop share a connection."""
