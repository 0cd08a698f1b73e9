"""Errors of pymilvus: their reason, and whether they are transient."""

__all__ = ["passes", "reason_of"]

# Codes of Milvus (pkg/util/merr) of transient errors: unavailable, too many requests, rate limit; collection or
# partition not yet loaded; replica, channel, segment or node missing, as after a restart. 49: rate limit before 2.3.
_PASSING = {2, 4, 8, 49, 101, 103, 201, 203, *range(400, 406), *range(500, 506), *range(600, 606), *range(901, 908)}
_PASSING_STATUS = {"ABORTED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}
# Its messages with the general code 65535 while it starts and while its parts reconnect.
_PASSING_WORDS = ("not ready", "node not found", "connection is closing")


def passes(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    status, code, message = reason_of(error)
    retriable = getattr(error, "retriable", False) or any(words in message for words in _PASSING_WORDS)
    return bool(retriable) or status in _PASSING_STATUS or code in _PASSING


def reason_of(error: Exception) -> tuple[str, int, str]:
    """The gRPC status or "", Milvus's code or 0, and the message of an error that pymilvus raises."""
    import grpc

    # If it cannot connect, pymilvus gives no reason; gRPC's error behind it does.
    behind = next((cause for cause in (error.__cause__, error.__context__) if isinstance(cause, grpc.RpcError)), error)
    code = getattr(behind, "code", 0)
    code = code() if callable(code) else code  # a method of gRPC's errors, a property of Milvus's
    details = getattr(behind, "details", None)
    message = (details() if callable(details) else None) or getattr(error, "message", None) or str(error)
    return (
        (str(code.name), 0, str(message)) if isinstance(code, grpc.StatusCode) else ("", int(code or 0), str(message))
    )
