"""The log, and the checkpoints, on an etcd cluster; needs the extra `kvzmq[etcd]`."""
