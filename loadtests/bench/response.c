#include "response.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void response_reset(struct response *response) {
    response->state = STATUS_LINE;
    response->status = 0;
    response->chunked = false;
    response->line_used = 0;
    response->sse.after_cr = false;
    response->sse.has_data = false;
    response->sse.line_used = 0;
    response->sse.data_used = 0;
    response->sse.name[0] = '\0';
}

static bool read_status(struct response *response) {
    if (sscanf(response->line, "HTTP/1.%*1[01] %3d", &response->status) != 1)
        return false;
    response->state = HEADERS;
    return true;
}

static bool read_header(struct response *response) {
    if (response->line_used == 0)
        response->state = response->chunked ? CHUNK_SIZE : UNTIL_CLOSE;
    else if (strncasecmp(response->line, "transfer-encoding:", 18) == 0)
        response->chunked = strcasestr(response->line + 18, "chunked") != NULL;
    return true;
}

static bool read_chunk_size(struct response *response) {
    char *end;
    response->chunk_left = strtoul(response->line, &end, 16);
    response->state = response->chunk_left == 0 ? ENDED : CHUNK_DATA;
    return end != response->line;
}

static bool end_line(struct response *response) {
    response->line[response->line_used] = '\0';
    switch (response->state) {
    case STATUS_LINE:
        return read_status(response);
    case HEADERS:
        return read_header(response);
    case CHUNK_SIZE:
        return read_chunk_size(response);
    default: /* CHUNK_END: the line break behind a chunk's data */
        response->state = CHUNK_SIZE;
        return response->line_used == 0;
    }
}

/* One byte of a line of the head or of the chunks' framing. */
static bool feed_line(struct response *response, char byte) {
    if (byte == '\r')
        return true;
    if (byte == '\n') {
        bool valid = end_line(response);
        response->line_used = 0;
        return valid;
    }
    if (response->line_used + 1 >= sizeof response->line)
        return false;
    response->line[response->line_used++] = byte;
    return true;
}

bool response_feed(struct response *response, const char *bytes, size_t size, sse_handler *handler, void *owner) {
    while (size > 0 && response->state != ENDED) {
        size_t taken = 1;
        if (response->state == CHUNK_DATA || response->state == UNTIL_CLOSE) {
            taken = response->state == CHUNK_DATA && response->chunk_left < size ? response->chunk_left : size;
            if (!sse_feed(&response->sse, bytes, taken, handler, owner))
                return false;
            if (response->state == CHUNK_DATA && (response->chunk_left -= taken) == 0)
                response->state = CHUNK_END;
        } else if (!feed_line(response, *bytes))
            return false;
        bytes += taken;
        size -= taken;
    }
    return true;
}
