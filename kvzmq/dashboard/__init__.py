"""A page that shows a server at work: a process of its own, which asks it as any other client does.

    rings        figures over time, bounded
    collector    asks the server a few times a second, and keeps the last hour
    streams      what browsers are sent as it happens
    shown        keys and values as text
    rows         the table's rows, and the history of one
    changes      the latest changes below a prefix, while somebody looks
    lanes        how requests interleaved
    servers      what a catalog knows
    safety       who may ask, and the headers that keep others out
    charts       where the charting library is found
    app          the routes
    run          listens and serves
    static/      the page: HTML, CSS, and modules that the browser loads as they are

Needs starlette, uvicorn and nicegui, which `pip install 'kvzmq[web]'` brings; of nicegui it takes the charting library
alone, and imports nothing. Everything is read-only: nothing here changes a table, a server or a file.
"""
