/* SPDX-License-Identifier: BSD-2-Clause */

/* map: what a file is made of, and who holds which bytes of it, drawn to scale. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/leasectl/leasectl.h"
#include "tools/leasectl/map.h"
#include "tools/leasectl/target.h"
#include "tools/leasectl/units.h"
#include <leasefs/protocol.h>

#define WIDTH 64u

static uint64_t number(const json_t *object, const char *name)
{
    json_int_t value = json_integer_value(json_object_get(object, name));

    return value > 0 ? (uint64_t)value : 0;
}

static const char *word(const json_t *object, const char *name)
{
    const char *value = json_string_value(json_object_get(object, name));

    return value ? value : "-";
}

void map_draw(char *line, size_t width, uint64_t total, uint64_t offset, uint64_t length, char with)
{
    size_t first, last;

    if (!total || !length || offset >= total)
        return;
    if (length > total - offset)
        length = total - offset;
    first = (size_t)((long double)offset / (long double)total * (long double)width);
    last = (size_t)((long double)(offset + length - 1) / (long double)total * (long double)width);
    for (size_t i = first; i <= last && i < width; i++)
        line[i] = with;
}

static char letter(const json_t *extent)
{
    if (strcmp(word(extent, "state"), "written"))
        return '-';
    return json_is_true(json_object_get(extent, "shared")) ? '+' : '#';
}

static void show_extents(json_t *map, uint64_t total)
{
    char line[WIDTH + 1], size[32];
    size_t index;
    json_t *extent;

    memset(line, '.', WIDTH);
    line[WIDTH] = '\0';
    json_array_foreach(json_object_get(map, "extents"), index, extent)
        map_draw(line, WIDTH, total, number(extent, "offset"), number(extent, "length"), letter(extent));
    output_text("%-10s |%s|  # written  + shared  - unwritten  . hole", "blocks", line);
    output_text("%16s %16s %10s %16s  %s", "offset", "length", "", "pool offset", "state");
    json_array_foreach(json_object_get(map, "extents"), index, extent) output_text(
        "%16llu %16llu %10s %16llu  %s%s", (unsigned long long)number(extent, "offset"),
        (unsigned long long)number(extent, "length"), format_size(number(extent, "length"), size, sizeof(size)),
        (unsigned long long)number(extent, "pool_offset"), word(extent, "state"),
        json_is_true(json_object_get(extent, "shared")) ? ", shared" : "");
}

static void show_leases(json_t *map, uint64_t total)
{
    char line[WIDTH + 1], name[32];
    size_t index;
    json_t *lease;

    json_array_foreach(json_object_get(map, "leases"), index, lease)
    {
        memset(line, ' ', WIDTH);
        line[WIDTH] = '\0';
        map_draw(line, WIDTH, total, number(lease, "offset"), number(lease, "length"),
                 strcmp(word(lease, "mode"), "write") ? 'R' : 'W');
        snprintf(name, sizeof(name), "lease %llu", (unsigned long long)number(lease, "lease"));
        output_text("%-10s |%s|  %s, %s, session %llu: %llu+%llu", name, line, word(lease, "mode"),
                    word(lease, "state"), (unsigned long long)number(lease, "session"),
                    (unsigned long long)number(lease, "offset"), (unsigned long long)number(lease, "length"));
    }
}

/* Bytes that the drawing stands for: blocks may lie behind the end of the file. */
static uint64_t extent_of(json_t *map)
{
    uint64_t total = number(map, "size"), end;
    size_t index;
    json_t *extent;

    json_array_foreach(json_object_get(map, "extents"), index, extent)
    {
        end = number(extent, "offset") + number(extent, "length");
        if (end > total)
            total = end;
    }
    return total;
}

static void show(json_t *map)
{
    uint64_t total = extent_of(map);

    output_text("%s: %llu bytes, %zu extents, %zu leases", word(map, "path"), (unsigned long long)number(map, "size"),
                json_array_size(json_object_get(map, "extents")), json_array_size(json_object_get(map, "leases")));
    if (!total)
        return;
    show_leases(map, total);
    show_extents(map, total);
}

/* One answer holds so many extents only: the rest is asked for and appended. */
static int fetch(struct leasefs_session *session, const char *path, json_t **ret_map)
{
    json_t *map = NULL, *params, *more;
    uint64_t offset = 0;
    char *text, *answer;
    int status;

    do {
        params = json_pack("{s:s, s:I}", "path", path, "offset", (json_int_t)offset);
        text = json_dumps(params, JSON_COMPACT);
        json_decref(params);
        answer = NULL;
        status = leasefs_call(session, LEASEFS_METHOD_MAP, text, &answer);
        free(text);
        more = status ? NULL : json_loads(answer, 0, NULL);
        free(answer);
        if (status || !more) {
            json_decref(map);
            return status ? status : -EPROTO;
        }
        offset = number(more, "next_offset");
        json_object_del(more, "next_offset");
        if (map) {
            json_array_extend(json_object_get(map, "extents"), json_object_get(more, "extents"));
            json_decref(more);
        } else {
            map = more;
        }
    } while (offset);
    *ret_map = map;
    return 0;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    const char **name = state->input;

    switch (key) {
    case ARGP_KEY_ARG:
        if (*name)
            argp_error(state, "too many arguments");
        *name = arg;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "which file?");
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int command_map(int argc, char **argv)
{
    static const struct argp_child children[] = {{&common_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {.parser = parse,
                                     .children = children,
                                     .args_doc = "PATH",
                                     .doc = "Show which blocks a file has, and draw its leases over them."};
    struct leasefs_session *session;
    struct target target;
    const char *name = NULL;
    json_t *map;
    int code, status;

    if (argp_parse(&argp, argc, argv, 0, NULL, &name))
        return EXIT_USAGE;
    code = target_take(name, &target);
    if (code)
        return code;
    code = open_session(target.control, target.host, &session);
    if (!code) {
        status = fetch(session, target.path, &map);
        if (status) {
            code = output_error(status, name);
        } else {
            if (common.json)
                output_result("map", map);
            else
                show(map);
            json_decref(map);
        }
        leasefs_session_close(session);
    }
    target_clear(&target);
    return code;
}
