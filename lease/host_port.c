/* SPDX-License-Identifier: BSD-2-Clause */
#include "lease/host_port.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int parse_port(const char *text, uint16_t *ret_port)
{
    size_t length = strlen(text);
    unsigned long value;

    if (length < 1 || length > 5 || strspn(text, "0123456789") != length)
        return -EINVAL;
    value = strtoul(text, NULL, 10);
    if (value > UINT16_MAX)
        return -EINVAL;
    *ret_port = (uint16_t)value;
    return 0;
}

int host_port_parse(const char *text, uint16_t default_port, struct host_port *ret_where)
{
    struct host_port where = {.port = default_port};
    const char *start = text, *end, *port = NULL;

    if (*text == '[') {
        start++;
        end = strchr(start, ']');
        if (!end || (end[1] && end[1] != ':'))
            return -EINVAL;
        port = end[1] ? end + 2 : NULL;
    } else {
        end = strchr(text, ':');
        if (end && !strchr(end + 1, ':'))
            port = end + 1;
        else
            end = text + strlen(text); /* none, or several: an IPv6 address */
    }
    if (end == start || (size_t)(end - start) > HOST_MAX)
        return -EINVAL;
    memcpy(where.host, start, (size_t)(end - start));
    if (port && parse_port(port, &where.port))
        return -EINVAL;
    *ret_where = where;
    return 0;
}

const char *host_port_text(const struct sockaddr_storage *address, char text[HOST_PORT_TEXT])
{
    char number[INET6_ADDRSTRLEN] = "?";

    if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;
        bool mapped = IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);

        if (mapped)
            inet_ntop(AF_INET, in6->sin6_addr.s6_addr + 12, number, sizeof(number));
        else
            inet_ntop(AF_INET6, &in6->sin6_addr, number, sizeof(number));
        snprintf(text, HOST_PORT_TEXT, mapped ? "%s:%u" : "[%s]:%u", number, ntohs(in6->sin6_port));
    } else {
        const struct sockaddr_in *in = (const struct sockaddr_in *)address;

        inet_ntop(AF_INET, &in->sin_addr, number, sizeof(number));
        snprintf(text, HOST_PORT_TEXT, "%s:%u", number, ntohs(in->sin_port));
    }
    return text;
}
