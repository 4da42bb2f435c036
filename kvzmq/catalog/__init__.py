"""The name service: announce a server, look one up, serve the list.

A server tells a catalog about itself once a minute; a client that looks for it asks the catalog and takes the
newest entry of the wanted type and project. The protocol is that of the Cooperative Computing Tools
(cctools), whose `catalog_server` and `catalog_query` work with everything here:

    update    a JSON object; or 0x1A and the zlib stream of one; NULs may follow.
              In one UDP datagram to PORT, or as the whole stream of a TCP connection to PORT + 1.
    query     GET /query.json on TCP PORT: a JSON array with an object for each entry, one a line
              GET /query/EXPRESSION: the same, filtered; EXPRESSION in base64
              GET /query.text: lines "name value", an empty line after each entry
              GET /: an HTML page
    entry     the announced fields, and those that the catalog adds: name, address, lastheardfrom (epoch seconds)

Two updates are from the same server when they come from the same address and have the same `port` and `uuid`.
There is no authentication: any program can announce anything, so an entry proves nothing about the server.

The sources are cctools' manual pages and published source, and what Debian's coop-computing-tools 8.0.0 and 9.9 were
observed to send and to accept; tests/integration/test_catalog_original.py runs them. In this text and in comments
"the original" is their `catalog_server`. Kvzmq's catalog does not have updates in the format before JSON, /query.xml,
the two kinds of ClassAds, and most of the expression language.

    addresses    HOST:PORT, CATALOG_HOST, name resolution
    announce     used by servers: never blocks, never raises
    lookup       used by clients: blocks, up to a deadline
    table        the entries of a catalog. No I/O.
    where        the filters of queries
    pages        HTTP request in, answer out. No I/O.
    server       the sockets

The package exports what servers and clients need; a program that serves a catalog imports `kvzmq.catalog.server`.
"""

from kvzmq.catalog.addresses import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    default_address,
    is_loopback,
    parse_address,
    parse_endpoint,
)
from kvzmq.catalog.announce import TABLE_TYPES, Announcement, Announcer, announcement_of
from kvzmq.catalog.lookup import (
    LINEAGE_DIGITS,
    AnotherTable,
    BadCatalogAnswer,
    CatalogUnreachable,
    Entry,
    NoSuchProject,
    NoUsableServer,
    endpoints_of,
    find,
    find_servers,
    newest_revisions,
    query,
    why_unusable,
)

__all__ = [
    "AnotherTable",
    "DEFAULT_HOST",
    "DEFAULT_PORT",
    "LINEAGE_DIGITS",
    "TABLE_TYPES",
    "Announcement",
    "Announcer",
    "BadCatalogAnswer",
    "CatalogUnreachable",
    "Entry",
    "NoSuchProject",
    "NoUsableServer",
    "announcement_of",
    "default_address",
    "endpoints_of",
    "find",
    "find_servers",
    "is_loopback",
    "newest_revisions",
    "parse_address",
    "parse_endpoint",
    "query",
    "why_unusable",
]
