# Who the master is: what the Sentinels say, else what ours knew when it last ran, else the first pod. To be sourced; sets
# `master` and `me`.
service=sluice-redis
me=$HOSTNAME.$service
master=
for number in 0 1 2; do
    master=$(timeout 2 redis-cli -h "$service-$number.$service" -p 26379 sentinel get-master-addr-by-name sluice 2>/dev/null |
        head -n 1)
    case $master in "$service"-*) break ;; *) master= ;; esac
done
[ -n "$master" ] || master=$(sed -n 's/^sentinel monitor sluice \([^ ]*\) .*/\1/p' /data/sentinel.conf 2>/dev/null || true)
[ -n "$master" ] || master=$service-0.$service
