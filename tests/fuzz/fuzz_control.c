/* SPDX-License-Identifier: BSD-2-Clause */
/* What a client may say after it has opened its session: to the real service, between a filesystem and a fabric that
 * only pretend. Afterwards somebody else must be served, and in the end nothing may be left of anybody's. */
#include "service_fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct client other, client;

static void end(void)
{
    client_hang_up(&other);
    world_end();
}

static void begin(void)
{
    struct lease_service_config config = world_config();

    snprintf(world.path, sizeof(world.path), "fuzz_control.%d", (int)getpid());
    config.limits.recall_timeout_ns = 20 * MS;
    config.limits.lease_time_ns = 1000 * MS;
    world_start(&config);
    client_open(&other);
    atexit(end);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!world.service)
        begin();
    client_open(&client);
    client_write(&client, (const char *)data, size);
    client_write(&client, "\n", 1);
    client_hang_up(&client); /* what it asked for is cut off at any point */
    client_refused(&other, "renew", "{\"lease\":0}", "ENOENT", NULL);
    return 0;
}
