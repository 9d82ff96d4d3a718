#include "wheel.h"

#include <stddef.h>

void wheel_start(struct wheel *wheel, int64_t now_ms) {
    wheel->now_ms = now_ms;
    for (int slot = 0; slot < WHEEL_SLOTS; slot++)
        wheel->slots[slot].next = wheel->slots[slot].previous = &wheel->slots[slot];
}

void wheel_set(struct wheel *wheel, struct timer *timer, int64_t due_ms) {
    int64_t ahead_ms = due_ms - wheel->now_ms;
    if (ahead_ms < 1)
        ahead_ms = 1; /* the current slot is being fired: a timer put there would fire in the same turn, for ever */
    if (ahead_ms >= WHEEL_SLOTS)
        ahead_ms = WHEEL_SLOTS - 1;
    struct timer *head = &wheel->slots[(wheel->now_ms + ahead_ms) % WHEEL_SLOTS];
    timer->next = head;
    timer->previous = head->previous;
    head->previous->next = timer;
    head->previous = timer;
}

void timer_clear(struct timer *timer) {
    if (timer->next == NULL)
        return;
    timer->next->previous = timer->previous;
    timer->previous->next = timer->next;
    timer->next = timer->previous = NULL;
}

void wheel_turn(struct wheel *wheel, int64_t now_ms, timer_handler *handler) {
    while (wheel->now_ms < now_ms) {
        wheel->now_ms++;
        struct timer *head = &wheel->slots[wheel->now_ms % WHEEL_SLOTS];
        while (head->next != head) {
            struct timer *timer = head->next;
            timer_clear(timer);
            handler(timer);
        }
    }
}
