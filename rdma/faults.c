/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/faults.h"

#ifdef LEASEFS_FAULTS

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rdma/sync.h"

#define MAX_FAULTS 8

enum action { FAIL, EARLY, SLOW, STUCK };

struct fault {
    char place[16];
    enum action action;
    unsigned ms;
};

static struct {
    pthread_mutex_t lock;
    pthread_once_t once;
    pthread_cond_t changed;
    struct fault list[MAX_FAULTS]; /* these three: guarded by lock */
    size_t count;
    unsigned long version;
} faults = {.lock = PTHREAD_MUTEX_INITIALIZER, .once = PTHREAD_ONCE_INIT};

static int parse_fault(const char *word, struct fault *fault)
{
    char action[16];
    int used = 0;

    if (sscanf(word, "%15[a-z]=%15[a-z]%n", fault->place, action, &used) != 2)
        return -EINVAL;
    if (sscanf(word + used, ":%u", &fault->ms) != 1)
        fault->ms = 0;
    if (!strcmp(action, "fail"))
        fault->action = FAIL;
    else if (!strcmp(action, "early"))
        fault->action = EARLY;
    else if (!strcmp(action, "slow") && fault->ms)
        fault->action = SLOW;
    else if (!strcmp(action, "stuck"))
        fault->action = STUCK;
    else
        return -EINVAL;
    return 0;
}

static int replace_list(const char *list)
{
    struct fault new[MAX_FAULTS];
    size_t count = 0;

    for (; *list; list += strcspn(list, ","), list += *list == ',')
        if (count == MAX_FAULTS || parse_fault(list, &new[count++]) < 0)
            return -EINVAL;
    pthread_mutex_lock(&faults.lock);
    memcpy(faults.list, new, sizeof(new[0]) * count);
    faults.count = count;
    faults.version++;
    pthread_cond_broadcast(&faults.changed);
    pthread_mutex_unlock(&faults.lock);
    return 0;
}

static void use_environment(const char *variable)
{
    const char *list = getenv(variable);

    if (!list)
        return;
    if (replace_list(list) < 0) {
        fabric_log("%s=%s: not a list of faults", variable, list);
        abort();
    }
    fabric_log("TEST BUILD WITH FAULTS: %s", list);
}

static void begin(void)
{
    sync_cond_init(&faults.changed);
    use_environment("LEASEFS_FAULTS_AT_START");
}

void faults_after_start(void)
{
    pthread_once(&faults.once, begin);
    use_environment("LEASEFS_FAULTS");
}

int faults_set(const char *list)
{
    pthread_once(&faults.once, begin);
    return replace_list(list);
}

bool fault_inject(const char *place, int *ret_result)
{
    struct fault fault = {0};
    bool found = false;

    pthread_once(&faults.once, begin);
    pthread_mutex_lock(&faults.lock);
    for (size_t i = 0; i < faults.count && !found; i++) {
        fault = faults.list[i];
        found = !strcmp(fault.place, place);
    }
    if (found && (fault.action == SLOW || fault.action == STUCK)) {
        uint64_t until = fault.action == SLOW ? monotonic_ns() + fault.ms * NS_PER_MS : UINT64_MAX;
        unsigned long version = faults.version;

        while (faults.version == version)
            if (fault.action == STUCK)
                pthread_cond_wait(&faults.changed, &faults.lock);
            else if (sync_wait_until(&faults.changed, &faults.lock, until) == -ETIMEDOUT)
                break;
    }
    pthread_mutex_unlock(&faults.lock);
    if (!found || fault.action == SLOW || fault.action == STUCK)
        return false;
    *ret_result = fault.action == EARLY ? 0 : -EIO;
    return true;
}

#endif
