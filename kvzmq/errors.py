"""The errors, each with a stable code that travels on the wire.

    KvzmqError
    ├── OperationError          one operation failed, the others of its request did not
    │   ├── NoSuchKey               1   (a KeyError)
    │   ├── WrongType               2   (a TypeError)
    │   ├── CheckFailed             3
    │   ├── ResultTooLarge          4
    │   ├── RevisionGone            5
    │   ├── WatchIdle               6
    │   └── BackupFailed            7
    ├── RequestRefused          nothing of the request was executed
    │   ├── InvalidRequest         16   (a ValueError)
    │   ├── InvalidMethod          17
    │   ├── WriteRejected          18
    │   ├── SessionExpired         19
    │   ├── SequenceReused         20
    │   ├── NotAllowed             21
    │   └── Unavailable            22
    ├── Timeout                 the operation did not run, or was a read   (a TimeoutError)
    ├── OutcomeUnknown          the operation may have run, once
    ├── TableChanged            another table answers where one was used before
    ├── CorruptionError         a file is not what was written
    ├── WrittenByNewer          a newer version of kvzmq wrote the file
    ├── DirectoryInUse          another server has the directory
    ├── CannotListen            an endpoint is in use or malformed
    ├── PeerGone                nobody is left to send to
    ├── StorageFatal            the disk cannot be trusted any more: stop
    ├── AppendUnknown           the log cannot tell yet whether a group is in it   (within a server)
    ├── LogUnreachable          the log cannot be asked what others have appended  (within a server)
    ├── LogTrimmed              the log has no longer what was not applied yet     (within a server)
    ├── LogWentBack             etcd has forgotten what a server has seen there: refuse to start
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
    """Base class of all kvzmq errors."""

    code: int = 255


class OperationError(KvzmqError):
    """Base class of errors of one operation, which changed nothing."""


class NoSuchKey(OperationError, KeyError):
    """The key is not in the table."""

    code = 1

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return Exception.__str__(self)


class WrongType(OperationError, TypeError):
    """The stored value is not of the type that the operation works on."""

    code = 2


class CheckFailed(OperationError):
    """A check of a transaction did not hold: nothing of it was applied."""

    code = 3


class ResultTooLarge(OperationError):
    """The result does not fit one reply: ask for less, or in pages."""

    code = 4


class RevisionGone(OperationError):
    """The history that a watch asked for is no longer kept, or is another one."""

    code = 5


class WatchIdle(OperationError):
    """A watch was ended because its connection did not send the heartbeats it had promised: watch again."""

    code = 6


class BackupFailed(OperationError):
    """A backup cannot be made, or is not there any more: the message says why. Begin it again."""

    code = 7


class RequestRefused(KvzmqError):
    """Base class of refusals of a whole request: nothing of it was executed."""


class InvalidRequest(RequestRefused, ValueError):
    """The request is not of the protocol's form."""

    code = 16


class InvalidMethod(RequestRefused):
    """There is no operation of this name."""

    code = 17


class WriteRejected(RequestRefused):
    """The change could not be written, a full disk most often: not applied."""

    code = 18


class SessionExpired(RequestRefused):
    """The session, or this number within it, was forgotten: not executed now."""

    code = 19


class SequenceReused(RequestRefused):
    """The sequence number was used before, for another request."""

    code = 20


class NotAllowed(RequestRefused):
    """The server does not know the client's key, or the client may not do this: not executed."""

    code = 21


class Unavailable(RequestRefused):
    """The server cannot know now whether its table is new enough for this: not executed. Another server may."""

    code = 22


class Timeout(KvzmqError, TimeoutError):
    """The deadline passed, and the operation certainly did not run, or was a read."""


class OutcomeUnknown(KvzmqError):
    """No answer came in time: the operation may have been executed, once."""


class TableChanged(KvzmqError):
    """Another table answers where this client used one before: nothing of the call was executed on it."""


class CorruptionError(KvzmqError):
    """A file is not what was written; the message says where."""


class WrittenByNewer(KvzmqError):
    """A newer version wrote the file: it may be whole, but this one cannot know what it means."""


class DirectoryInUse(KvzmqError):
    """Another server has the directory open."""


class CannotListen(KvzmqError):
    """A server cannot listen on an endpoint."""


class PeerGone(KvzmqError):
    """The peer has disconnected."""


class StorageFatal(KvzmqError):
    """The disk failed in a way after which only a restart tells what is on it: stop."""


class AppendUnknown(KvzmqError):
    """The log cannot tell yet whether the group is in it: nothing else may be appended before it can."""


class LogUnreachable(KvzmqError):
    """The log cannot be asked now what others have appended, so nothing can be read linearizably."""


class LogTrimmed(KvzmqError):
    """The log no longer has the groups that this server has to apply next: a checkpoint holds them."""


class LogWentBack(KvzmqError):
    """The log that a cluster keeps has lost changes which this server has served, by a restored snapshot most often."""


class CatalogError(KvzmqError):
    """The name service could not be asked, or does not know the project."""


def _leaves(root: type[KvzmqError]) -> list[type[KvzmqError]]:
    return [leaf for child in root.__subclasses__() for leaf in (child, *_leaves(child))]


BY_CODE: dict[int, type[KvzmqError]] = {
    error.code: error for root in (OperationError, RequestRefused) for error in _leaves(root)
}
"""The error of each wire code."""


def error_of(code: int, message: object) -> KvzmqError:
    """Return the error that a result of `code` and payload `message` stands for."""
    return BY_CODE.get(code, KvzmqError)(message)
