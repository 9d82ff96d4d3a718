#!/bin/sh
# Starts Redis as the master, or behind whoever is.
set -eu
. /etc/redis/master.sh
set -- /etc/redis/redis.conf --replica-announce-ip "$me"
[ "$master" = "$me" ] || set -- "$@" --replicaof "$master" 6379
exec redis-server "$@"
