/* SPDX-License-Identifier: BSD-2-Clause */
#include "tools/leasectl/target.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "tools/leasectl/leasectl.h"
#include <leasefs/protocol.h>

#define XATTR_CONTROL "user.leasefs.control"
#define XATTR_PATH    "user.leasefs.path"

void target_clear(struct target *target)
{
    free(target->host);
    free(target->path);
    free(target->control);
    *target = (struct target){0};
}

const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* An extended attribute as text, or NULL. */
static char *ask_text(target_getxattr *ask, const char *path, const char *name)
{
    char value[LEASEFS_MAX_PATH + 1];
    long length = ask(path, name, value, sizeof(value) - 1);

    return length > 0 ? strndup(value, (size_t)length) : NULL;
}

/* The control socket and the path inside the filesystem of something on a mount; 1: it is not on one. */
static int translate(const char *path, target_getxattr *ask, struct target *ret_target)
{
    char *control = ask_text(ask, path, XATTR_CONTROL);
    char *inside = ask_text(ask, path, XATTR_PATH);

    if (!control || !inside) {
        free(control);
        free(inside);
        return 1;
    }
    /* "dir/" still says that it is a directory. */
    if (!*base_name(path) && *base_name(inside)) {
        char *slashed = NULL;

        if (asprintf(&slashed, "%s/", inside) >= 0) {
            free(inside);
            inside = slashed;
        }
    }
    ret_target->control = control;
    ret_target->path = inside;
    return 0;
}

/* A file that is to be made: its directory knows. */
static int translate_in_directory(const char *path, target_getxattr *ask, struct target *ret_target)
{
    const char *base = base_name(path);
    size_t length = (size_t)(base - path);
    char *directory = length ? strndup(path, length > 1 ? length - 1 : 1) : strdup(".");
    char *joined = NULL;
    int status;

    if (!directory)
        return -ENOMEM;
    status = translate(directory, ask, ret_target);
    free(directory);
    if (status)
        return status;
    if (asprintf(&joined, "%s/%s", strcmp(ret_target->path, "/") ? ret_target->path : "", base) < 0) {
        target_clear(ret_target);
        return -ENOMEM;
    }
    free(ret_target->path);
    ret_target->path = joined;
    return 0;
}

/* Where the HOST of "HOST:PATH" ends; NULL: there is none. */
static const char *find_colon(const char *text)
{
    const char *end;

    if (*text == '[') {
        end = strchr(text, ']');
        return end && end[1] == ':' ? end + 1 : NULL;
    }
    end = text + strcspn(text, ":/");
    return *end == ':' ? end : NULL;
}

static int parse_remote(const char *text, const char *colon, struct target *ret_target)
{
    const char *start = text, *end = colon;

    if (colon[1] != '/')
        return -EINVAL;
    if (*text == '[') {
        start++;
        end--;
    }
    if (end > start) {
        ret_target->host = strndup(start, (size_t)(end - start));
        if (!ret_target->host)
            return -ENOMEM;
    }
    ret_target->path = strdup(colon + 1);
    return ret_target->path ? 0 : -ENOMEM;
}

int target_parse(const char *text, target_getxattr *ask, struct target *ret_target)
{
    const char *colon = find_colon(text);
    struct target target = {0};
    int status;

    if (!*text)
        return -EINVAL;
    if (colon) {
        status = parse_remote(text, colon, &target);
    } else {
        status = translate(text, ask, &target);
        if (status == 1 && *base_name(text))
            status = translate_in_directory(text, ask, &target);
        if (status == 1) {
            status = *text == '/' ? 0 : -EINVAL;
            target.path = status ? NULL : strdup(text);
            if (!status && !target.path)
                status = -ENOMEM;
        }
    }
    if (status) {
        target_clear(&target);
        return status;
    }
    *ret_target = target;
    return 0;
}

static long system_getxattr(const char *path, const char *name, void *value, unsigned long size)
{
    return getxattr(path, name, value, size);
}

int target_take(const char *text, struct target *ret_target)
{
    int status = target_parse(text, system_getxattr, ret_target);

    if (status == -EINVAL)
        return output_usage("%s: neither SERVER:/PATH, nor on a mounted leasefs, nor a /PATH inside one. Write :/PATH "
                            "for the server at the control socket.",
                            text);
    return status ? output_failure(status, "%s: %s", text, strerror(-status)) : 0;
}

int target_complete(struct target *target, const char *source)
{
    size_t length = strlen(target->path);
    char *joined;

    if (!length || target->path[length - 1] != '/')
        return 0;
    if (asprintf(&joined, "%s%s", target->path, base_name(source)) < 0)
        return -ENOMEM;
    free(target->path);
    target->path = joined;
    return 0;
}
