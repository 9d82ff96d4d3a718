/* When streams are to begin: a Poisson process drawn from a seed, which does not wait for the server, and the queue of
 * those that have not begun yet. Latency counts from the scheduled time, so that a server that stands still is charged
 * with all who would have come meanwhile. */
#ifndef ARRIVALS_H
#define ARRIVALS_H

#include <stdbool.h>
#include <stdint.h>

#define ARRIVALS_WAITING_MAX 65536

struct arrivals {
    double per_second;
    unsigned short random[3];
    int64_t next_ns;
    long scheduled, overflowed;
    unsigned head, waiting;
    int64_t due_ns[ARRIVALS_WAITING_MAX];
};

/* A number in (0, 1], from `random`'s own sequence. */
double draw(unsigned short random[3]);

void arrivals_start(struct arrivals *arrivals, double per_second, long seed, int64_t start_ns);

/* Queues all that are due by `now_ns`. */
void arrivals_advance(struct arrivals *arrivals, int64_t now_ns);

/* The scheduled time of the one that has waited longest; false when none waits. */
bool arrivals_take(struct arrivals *arrivals, int64_t *due_ns);

#endif
