#!/bin/sh
# Before Redis stops: a master asks for another one and waits until it has become a replica, so that a rollout loses nothing.
# It asks until it is heard, and then once only: a master that is not demoted yet would set off the next change. The kubelet
# runs this in both of the pod's containers at once: in the Sentinel's with `only-wait`, or the one asked later would change
# the master again.
seconds=0
heard=${1-}
while [ "$(redis-cli role | head -n 1)" = master ] && [ "$seconds" -lt 20 ]; do
    [ -n "$heard" ] || [ "$(redis-cli -p 26379 sentinel failover sluice)" != OK ] || heard=yes
    sleep 1
    seconds=$((seconds + 1))
done
