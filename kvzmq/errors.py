"""The errors, each with a stable code that travels on the wire.

    KvzmqError
    ├── OperationError          one operation failed, the others of its request did not
    │   ├── NoSuchKey               1   (a KeyError)
    │   ├── WrongType               2   (a TypeError)
    │   ├── CheckFailed             3
    │   ├── ResultTooLarge          4
    │   ├── RevisionGone            5
    │   └── WatchIdle               6
    ├── RequestRefused          nothing of the request was executed
    │   ├── InvalidRequest         16   (a ValueError)
    │   ├── InvalidMethod          17
    │   ├── StorageError           18
    │   ├── SessionExpired         19
    │   └── SequenceReused         20
    ├── Timeout                 the operation did not run, or was a read   (a TimeoutError)
    ├── OutcomeUnknown          the operation may have run, once
    ├── TableChanged            another table answers where one was used before
    ├── Damaged                 a file is not what was written
    ├── WrittenByNewer          a newer version of kvzmq wrote the file
    ├── DirectoryInUse          another server has the directory
    ├── CannotListen            an endpoint is in use or malformed
    ├── PeerGone                nobody is left to send to
    ├── StorageFailed           the disk cannot be trusted any more: stop
    └── CatalogError            the name service has no answer

Codes below 16 belong to one operation; codes from 16 on refuse a whole request, whose reply then
holds exactly one result.
"""

from __future__ import annotations

OK = 0
"""The code of success."""

REFUSED_MIN = 16
"""The first code that refuses a whole request."""


class KvzmqError(Exception):
    """Be the root of every error raised on purpose."""

    code: int = 255


class OperationError(KvzmqError):
    """Say that one operation failed and changed nothing."""


class NoSuchKey(OperationError, KeyError):
    """Say that the key is not in the table."""

    code = 1

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return Exception.__str__(self)


class WrongType(OperationError, TypeError):
    """Say that the stored value is not of the type the operation works on."""

    code = 2


class CheckFailed(OperationError):
    """Say that a check of a transaction did not hold: nothing of it was applied."""

    code = 3


class ResultTooLarge(OperationError):
    """Say that the result does not fit one reply: ask for less, or in pages."""

    code = 4


class RevisionGone(OperationError):
    """Say that the history a watch asked for is no longer kept."""

    code = 5


class WatchIdle(OperationError):
    """A watch was ended because its connection did not send the heartbeats it had promised: watch again."""

    code = 6


class RequestRefused(KvzmqError):
    """Say that nothing of a request was executed."""


class InvalidRequest(RequestRefused, ValueError):
    """Say that the request is not of the protocol's form."""

    code = 16


class InvalidMethod(RequestRefused):
    """Say that there is no operation of this name."""

    code = 17


class StorageError(RequestRefused):
    """Say that the change could not be written, a full disk most often: not applied."""

    code = 18


class SessionExpired(RequestRefused):
    """Say that the session, or this number within it, was forgotten: not executed now."""

    code = 19


class SequenceReused(RequestRefused):
    """Say that the sequence number was used before, for another request."""

    code = 20


class Timeout(KvzmqError, TimeoutError):
    """Say that the deadline passed and the operation certainly did not run, or was a read."""


class OutcomeUnknown(KvzmqError):
    """Say that no answer came in time and that the operation may have been executed, once."""


class TableChanged(KvzmqError):
    """Another table answers where this client used one before: nothing of the call was executed on it."""


class Damaged(KvzmqError):
    """Say that a file is not what was written, and where."""


class WrittenByNewer(KvzmqError):
    """Say that a newer version wrote a file: it may be whole, but this one cannot know what it means."""


class DirectoryInUse(KvzmqError):
    """Say that another server has the directory open."""


class CannotListen(KvzmqError):
    """Say that a server cannot listen where it was told to."""


class PeerGone(KvzmqError):
    """Say that the peer has disconnected."""


class StorageFailed(KvzmqError):
    """Say that the disk failed in a way after which only a restart tells what is on it."""


class CatalogError(KvzmqError):
    """Say that the name service could not be asked, or does not know the project."""


def _leaves(root: type[KvzmqError]) -> list[type[KvzmqError]]:
    return [leaf for child in root.__subclasses__() for leaf in (child, *_leaves(child))]


BY_CODE: dict[int, type[KvzmqError]] = {
    error.code: error for root in (OperationError, RequestRefused) for error in _leaves(root)
}
"""The error of each wire code."""


def error_of(code: int, message: object) -> KvzmqError:
    """Return the error that a result of `code` and payload `message` stands for."""
    return BY_CODE.get(code, KvzmqError)(message)
