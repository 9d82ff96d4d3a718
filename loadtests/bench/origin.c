/* origin: an OpenAI-compatible upstream on 127.0.0.1 that streams tokens at a fixed pace, for measuring what lies between
 * it and a client.
 *
 *     origin --port 9100 --tokens 100 --rate 20
 *
 * Each token's text is "@<index>:<CLOCK_MONOTONIC in ns> ". The stamp travels as content, which every gateway passes on
 * whatever surface it answers by, so the client can tell how long a token was under way and that none is missing. */
#include "clock.h"
#include "sockets.h"
#include "wheel.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define REQUEST_BYTES_MAX 16384
#define CHUNK_BYTES_MAX 512
#define EVENTS_MAX 512
#define TICK_MS 1

struct connection {
    struct timer timer; /* first, so that a timer's address is its connection's */
    int fd;
    bool streaming;
    int sent;
    int64_t started_ns;
    size_t request_used;
    char request[REQUEST_BYTES_MAX];
};

static struct {
    int port;
    int tokens;
    double rate;
} options;

static struct wheel wheel;
static int epoll_fd;

static void close_connection(struct connection *connection) {
    timer_clear(&connection->timer);
    close(connection->fd);
    free(connection);
}

/* All or nothing: what a peer that does not read leaves in the buffers (some hundred KB) is many seconds of tokens, and an
 * origin that waits for it would fall behind for everyone. */
static bool send_all(const struct connection *connection, const char *bytes, size_t size) {
    return write(connection->fd, bytes, size) == (ssize_t)size;
}

/* Sends `event` as one chunk, followed by `tail` (the end of the body, or nothing). */
static bool send_chunk(const struct connection *connection, const char *event, const char *tail) {
    char chunk[CHUNK_BYTES_MAX + 32];
    int size = snprintf(chunk, sizeof chunk, "%zx\r\n%s\r\n%s", strlen(event), event, tail);
    return send_all(connection, chunk, (size_t)size);
}

#define CHUNK_START                                                                                                      \
    "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"origin\","       \
    "\"choices\":[{\"index\":0,\"delta\":"

static bool send_token(struct connection *connection) {
    char event[CHUNK_BYTES_MAX];
    snprintf(event, sizeof event, CHUNK_START "{\"content\":\"@%d:%lld \"},\"finish_reason\":null}]}\n\n", connection->sent,
             (long long)now_ns());
    connection->sent++;
    return send_chunk(connection, event, "");
}

static bool send_end(struct connection *connection) {
    connection->streaming = false; /* the connection stays for the next request */
    return send_chunk(connection, CHUNK_START "{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n", "0\r\n\r\n");
}

/* Due times count from the stream's start: an origin that was late once does not stay late, and the load offered is the
 * same whatever happens. */
static void set_timer(struct connection *connection) {
    int64_t due_ns = connection->started_ns + (int64_t)(connection->sent * (double)NS_PER_SECOND / options.rate);
    wheel_set(&wheel, &connection->timer, due_ns / NS_PER_MS);
}

static void send_next(struct timer *timer) {
    struct connection *connection = (struct connection *)timer;
    bool sent = connection->sent < options.tokens ? send_token(connection) : send_end(connection);
    if (!sent)
        close_connection(connection);
    else if (connection->streaming)
        set_timer(connection);
}

static bool start_stream(struct connection *connection) {
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
                               "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection->streaming = true;
    connection->sent = 0;
    connection->started_ns = now_ns();
    if (!send_all(connection, head, sizeof head - 1) || !send_token(connection)) /* no tick's wait in anyone's TTFT */
        return false;
    set_timer(connection);
    return true;
}

static bool answer_not_found(const struct connection *connection) {
    static const char answer[] = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    return send_all(connection, answer, sizeof answer - 1);
}

/* The length of the complete request in the buffer, head and body; 0 while some of it is missing. */
static size_t request_size(const struct connection *connection) {
    const char *head_end = strstr(connection->request, "\r\n\r\n");
    if (head_end == NULL)
        return 0;
    const char *header = strcasestr(connection->request, "\r\ncontent-length:");
    size_t body = header != NULL && header < head_end ? strtoul(header + 17, NULL, 10) : 0;
    size_t size = (size_t)(head_end - connection->request) + 4 + body;
    return size <= connection->request_used ? size : 0;
}

/* False when the connection is of no more use. */
static bool read_request(struct connection *connection) {
    size_t room = sizeof connection->request - 1 - connection->request_used;
    ssize_t size = read(connection->fd, connection->request + connection->request_used, room);
    if (size < 0 && errno == EAGAIN)
        return true;
    if (size <= 0 || connection->streaming) /* closed, or a second request before the first is answered */
        return false;
    connection->request_used += (size_t)size;
    connection->request[connection->request_used] = '\0';
    if (request_size(connection) == 0)
        return connection->request_used < sizeof connection->request - 1;
    connection->request_used = 0;
    if (strncmp(connection->request, "POST /v1/chat/completions ", 26) == 0)
        return start_stream(connection);
    return answer_not_found(connection);
}

static void watch(int fd, struct connection *connection) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

static void accept_all(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct connection *connection = calloc(1, sizeof *connection);
        if (connection == NULL)
            abort();
        connection->fd = fd;
        send_at_once(fd);
        watch(fd, connection);
    }
}

static int listen_on(int port) {
    int on = 1;
    struct sockaddr_in address = loopback_address(port);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, SOMAXCONN) != 0) {
        perror("origin: bind");
        exit(1);
    }
    return listener;
}

static void serve(int listener) {
    struct epoll_event events[EVENTS_MAX];
    epoll_fd = epoll_create1(0);
    watch(listener, NULL);
    wheel_start(&wheel, now_ns() / NS_PER_MS);
    for (;;) {
        int count = epoll_wait(epoll_fd, events, EVENTS_MAX, TICK_MS);
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (connection == NULL)
                accept_all(listener);
            else if (!read_request(connection))
                close_connection(connection);
        }
        wheel_turn(&wheel, now_ns() / NS_PER_MS, send_next);
    }
}

static void read_options(int argc, char **argv) {
    static const struct option names[] = {{"port", required_argument, NULL, 'p'},
                                          {"tokens", required_argument, NULL, 't'},
                                          {"rate", required_argument, NULL, 'r'},
                                          {0}};
    int name;
    while ((name = getopt_long(argc, argv, "", names, NULL)) != -1) {
        if (name == 'p')
            options.port = atoi(optarg);
        else if (name == 't')
            options.tokens = atoi(optarg);
        else if (name == 'r')
            options.rate = atof(optarg);
    }
    if (options.port < 1 || options.tokens < 1 || options.rate < 1 || options.rate > 1000) {
        fprintf(stderr, "usage: origin --port PORT --tokens PER_STREAM --rate PER_SECOND (1 to 1000)\n");
        exit(2);
    }
}

int main(int argc, char **argv) {
    read_options(argc, argv);
    signal(SIGPIPE, SIG_IGN); /* a peer that went away is an error of write(), not the end of everyone's streams */
    raise_file_limit();
    serve(listen_on(options.port));
    return 0;
}
