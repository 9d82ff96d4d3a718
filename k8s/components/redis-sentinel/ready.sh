#!/bin/sh
# Whether Redis serves: what it says, as redis-cli ends with 0 on an error too (LOADING, as long as it reads its file), and for
# a replica that it has what its master has, so that a rollout goes on to the next pod only then.
set -eu
[ "$(timeout 2 redis-cli ping)" = PONG ]
timeout 2 redis-cli info replication | grep -Eq '^(role:master|master_link_status:up)'
