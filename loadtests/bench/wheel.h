/* A timer wheel: what is due in the same millisecond shares a slot, so that setting a timer and firing it cost the same
 * for ten streams and for ten thousand. */
#ifndef WHEEL_H
#define WHEEL_H

#include <stdint.h>

#define WHEEL_SLOTS 4096 /* ms a timer may lie ahead; the slowest pace, one token a second, needs 1000 */

struct timer {
    struct timer *next, *previous; /* NULL while not set */
};

struct wheel {
    int64_t now_ms; /* all slots up to here have fired */
    struct timer slots[WHEEL_SLOTS];
};

typedef void timer_handler(struct timer *timer);

void wheel_start(struct wheel *wheel, int64_t now_ms);

/* Fires the timer at `due_ms`, or in the next millisecond when that has passed. It must not be set already. */
void wheel_set(struct wheel *wheel, struct timer *timer, int64_t due_ms);

void timer_clear(struct timer *timer);

/* Fires all that is due by `now_ms`. A handler may set its own timer again, or free it. */
void wheel_turn(struct wheel *wheel, int64_t now_ms, timer_handler *handler);

#endif
