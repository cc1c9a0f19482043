/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASE_HOST_PORT_H
#define LEASEFS_LEASE_HOST_PORT_H

/* "HOST", "HOST:PORT", "ADDRESS6", "[ADDRESS6]", "[ADDRESS6]:PORT". Of the wire's library. */

#include <netdb.h>
#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>

#define HOST_MAX       255u
#define HOST_PORT_TEXT (INET6_ADDRSTRLEN + 16) /* what host_port_text() needs */

struct host_port {
    char host[HOST_MAX + 1];
    uint16_t port;
};

/* -EINVAL: no host, or a port that is no number up to 65535. */
int host_port_parse(const char *text, uint16_t default_port, struct host_port *ret_where);

/* "192.0.2.1:20149", "[2001:db8::1]:20149": numbers. An IPv4 address inside an IPv6 one is shown as what it is. */
const char *host_port_text(const struct sockaddr_storage *address, char text[HOST_PORT_TEXT]);

#endif
