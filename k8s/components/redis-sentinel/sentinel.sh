#!/bin/sh
# Starts a Sentinel, which keeps what it learns in /data. By names, since a pod's address changes when it is moved.
set -eu
. /etc/redis/master.sh
if [ ! -s /data/sentinel.conf ]; then
    cat >/data/sentinel.conf <<END
port 26379
dir /tmp
protected-mode no
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel announce-ip $me
sentinel monitor sluice $master 6379 2
sentinel down-after-milliseconds sluice 5000
sentinel failover-timeout sluice 60000
sentinel parallel-syncs sluice 1
END
fi
exec redis-server /data/sentinel.conf --sentinel
