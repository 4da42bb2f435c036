"""The log, and the checkpoints, on an etcd cluster; needs the extra `kvzmq[etcd]`."""

import os

# gRPC's own handlers of fork abort a child that is to exec another program ("epoll_wait error: Bad file descriptor",
# gRPC 1.85). A process that holds a channel forks for nothing else: they are off. gRPC reads this as it is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
