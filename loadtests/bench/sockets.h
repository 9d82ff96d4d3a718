/* What both programs need of sockets. */
#ifndef SOCKETS_H
#define SOCKETS_H

#include <netinet/in.h>
#include <stdbool.h>

/* Raises the soft limit of open files to the hard one: a stream is a descriptor, and the usual soft limit is 1024. */
void raise_file_limit(void);

/* 127.0.0.1:port. */
struct sockaddr_in loopback_address(int port);

/* The first IPv4 address of a name; false when it has none. */
bool find_address(const char *host, int port, struct sockaddr_in *found);

/* Sends each small write at once: Nagle's algorithm would hold a token back until the one before is acknowledged. */
void send_at_once(int fd);

#endif
