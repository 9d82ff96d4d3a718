/* What both programs need of sockets. Everything here is loopback: a measurement never leaves the machine. */
#ifndef SOCKETS_H
#define SOCKETS_H

#include <netinet/in.h>

/* Raises the soft limit of open files to the hard one: a stream is a descriptor, and the usual soft limit is 1024. */
void raise_file_limit(void);

/* 127.0.0.1:port. */
struct sockaddr_in loopback_address(int port);

/* Sends each small write at once: Nagle's algorithm would hold a token back until the one before is acknowledged. */
void send_at_once(int fd);

#endif
