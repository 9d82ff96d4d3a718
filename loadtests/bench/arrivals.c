#include "arrivals.h"

#include "clock.h"

#include <math.h>
#include <stdlib.h>

double draw(unsigned short random[3]) {
    return 1 - erand48(random);
}

static void schedule_next(struct arrivals *arrivals) {
    arrivals->next_ns += (int64_t)(-log(draw(arrivals->random)) / arrivals->per_second * NS_PER_SECOND);
}

void arrivals_start(struct arrivals *arrivals, double per_second, long seed, int64_t start_ns) {
    arrivals->per_second = per_second;
    arrivals->random[0] = 0x330e;
    arrivals->random[1] = (unsigned short)seed;
    arrivals->random[2] = (unsigned short)(seed >> 16);
    arrivals->next_ns = start_ns;
    schedule_next(arrivals);
}

void arrivals_advance(struct arrivals *arrivals, int64_t now_ns) {
    for (; arrivals->next_ns <= now_ns; schedule_next(arrivals)) {
        arrivals->scheduled++;
        if (arrivals->waiting == ARRIVALS_WAITING_MAX) {
            arrivals->overflowed++;
            continue;
        }
        arrivals->due_ns[(arrivals->head + arrivals->waiting++) % ARRIVALS_WAITING_MAX] = arrivals->next_ns;
    }
}

bool arrivals_take(struct arrivals *arrivals, int64_t *due_ns) {
    if (arrivals->waiting == 0)
        return false;
    *due_ns = arrivals->due_ns[arrivals->head];
    arrivals->head = (arrivals->head + 1) % ARRIVALS_WAITING_MAX;
    arrivals->waiting--;
    return true;
}
