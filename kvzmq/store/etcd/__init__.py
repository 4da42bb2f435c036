"""The log in an etcd cluster, which several servers share: its checkpoints, their upkeep, and the room they take."""
