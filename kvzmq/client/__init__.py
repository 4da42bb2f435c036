"""The clients: a core without event loop or threads, and a blocking and an asyncio shell around it."""
