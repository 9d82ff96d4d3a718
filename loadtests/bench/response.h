/* Reads one HTTP/1.1 response from bytes in any portions and hands its body on as server-sent events. */
#ifndef RESPONSE_H
#define RESPONSE_H

#include "sse.h"

#define HEAD_LINE_BYTES_MAX 8192

enum response_state { STATUS_LINE, HEADERS, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, UNTIL_CLOSE, ENDED };

struct response {
    enum response_state state;
    int status; /* 0 until the status line is complete */
    bool chunked;
    size_t chunk_left;
    size_t line_used;
    char line[HEAD_LINE_BYTES_MAX];
    struct sse sse;
};

void response_reset(struct response *response);

/* Takes `size` bytes; false when they are not a response within our bounds. */
bool response_feed(struct response *response, const char *bytes, size_t size, sse_handler *handler, void *owner);

#endif
