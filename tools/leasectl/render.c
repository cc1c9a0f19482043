/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/leasectl/leasectl.h"

/*
 * Shows a server's answer to people without knowing its members, so that a newer server's answer shows whole:
 *
 *   name     value              members that are plain values, aligned
 *   list     a, b, c            lists of plain values
 *
 *   HEADING                     members that are objects, indented below their name
 *     name   value
 *
 *   COLUMN  COLUMN              members that are lists of objects, as a table below their name;
 *   value   value               so are objects of like objects, whose names make the first column
 */

#define MAX_COLUMNS 32
#define MAX_VALUE   256

static bool is_plain(const json_t *value)
{
    return !json_is_object(value) && !json_is_array(value);
}

static bool is_plain_list(const json_t *value)
{
    size_t index;
    json_t *item;

    if (!json_is_array(value))
        return false;
    json_array_foreach((json_t *)(uintptr_t)value, index, item) if (!is_plain(item)) return false;
    return true;
}

static void format_plain(const json_t *value, char *text, size_t size)
{
    switch (json_typeof(value)) {
    case JSON_STRING:
        snprintf(text, size, "%s", json_string_value(value));
        break;
    case JSON_INTEGER:
        snprintf(text, size, "%lld", (long long)json_integer_value(value));
        break;
    case JSON_REAL:
        snprintf(text, size, "%.3f", json_real_value(value));
        break;
    case JSON_TRUE:
        snprintf(text, size, "yes");
        break;
    case JSON_FALSE:
        snprintf(text, size, "no");
        break;
    default:
        snprintf(text, size, "-");
    }
    /* Names of clients and paths are others' text: nothing of it steers the terminal. */
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = '?';
}

static void format_value(const json_t *value, char *text, size_t size)
{
    size_t index, used = 0;
    json_t *item;

    if (is_plain(value)) {
        format_plain(value, text, size);
    } else if (json_is_array(value) && is_plain_list(value)) {
        text[0] = json_array_size(value) ? '\0' : '-';
        text[1] = '\0';
        json_array_foreach((json_t *)(uintptr_t)value, index, item)
        {
            if (used + 3 >= size)
                break;
            if (index)
                used += (size_t)snprintf(text + used, size - used, ", ");
            format_plain(item, text + used, size - used);
            used += strlen(text + used);
        }
    } else {
        size_t length = json_dumpb(value, text, size - 1, JSON_COMPACT);

        text[length < size ? length : 0] = '\0';
    }
}

/* "free_bytes" -> "free bytes" */
static void format_name(const char *name, char *text, size_t size)
{
    snprintf(text, size, "%s", name);
    for (; *text; text++)
        if (*text == '_')
            *text = ' ';
}

static void show_object(json_t *object, int indent);

static size_t find_columns(json_t *rows, const char **columns)
{
    size_t index, n = 0;
    const char *key;
    json_t *row, *value;

    json_array_foreach(rows, index, row)
    {
        json_object_foreach(row, key, value)
        {
            size_t i = 0;

            while (i < n && strcmp(columns[i], key))
                i++;
            if (i == n && n < MAX_COLUMNS)
                columns[n++] = key;
        }
    }
    return n;
}

static void format_cell(const json_t *row, const char *column, char *text)
{
    const json_t *value = json_object_get(row, column);

    if (value)
        format_value(value, text, MAX_VALUE);
    else
        strcpy(text, "-");
}

static void show_table(json_t *rows, int indent)
{
    const char *columns[MAX_COLUMNS];
    int widths[MAX_COLUMNS];
    size_t n = find_columns(rows, columns), index;
    char text[MAX_VALUE];
    json_t *row;

    for (size_t i = 0; i < n; i++) {
        widths[i] = (int)strlen(columns[i]);
        json_array_foreach(rows, index, row)
        {
            format_cell(row, columns[i], text);
            if ((int)strlen(text) > widths[i])
                widths[i] = (int)strlen(text);
        }
    }
    printf("%*s", indent, "");
    for (size_t i = 0; i < n; i++) {
        format_name(columns[i], text, sizeof(text));
        printf("%-*s%s", i + 1 < n ? widths[i] : 0, text, i + 1 < n ? "  " : "\n");
    }
    json_array_foreach(rows, index, row)
    {
        printf("%*s", indent, "");
        for (size_t i = 0; i < n; i++) {
            format_cell(row, columns[i], text);
            printf("%-*s%s", i + 1 < n ? widths[i] : 0, text, i + 1 < n ? "  " : "\n");
        }
    }
}

/* Several objects of plain values, with the same members: better seen as rows. */
static bool is_alike(json_t *object)
{
    json_t *value, *first = NULL;
    const char *key, *inner;
    json_t *member;

    json_object_foreach(object, key, value)
    {
        if (!json_is_object(value) || (first && json_object_size(value) != json_object_size(first)))
            return false;
        first = first ? first : value;
        json_object_foreach(value, inner, member) if (!is_plain(member) || !json_object_get(first, inner)) return false;
    }
    return json_object_size(object) > 1;
}

static void show_alike(json_t *object, int indent)
{
    json_t *rows = json_array(), *value;
    const char *key;

    json_object_foreach(object, key, value)
    {
        json_t *row = json_pack("{s:s}", "", key);

        json_object_update_missing(row, value);
        json_array_append_new(rows, row);
    }
    show_table(rows, indent);
    json_decref(rows);
}

static int name_width(json_t *object)
{
    int width = 0;
    const char *key;
    json_t *value;

    json_object_foreach(object, key, value) if ((is_plain(value) || is_plain_list(value)) && (int)strlen(key) > width)
        width = (int)strlen(key);
    return width;
}

static void show_plain_members(json_t *object, int indent)
{
    int width = name_width(object);
    char name[MAX_VALUE], text[4 * MAX_VALUE];
    const char *key;
    json_t *value;

    json_object_foreach(object, key, value)
    {
        if (!is_plain(value) && !is_plain_list(value))
            continue;
        format_name(key, name, sizeof(name));
        format_value(value, text, sizeof(text));
        printf("%*s%-*s  %s\n", indent, "", width, name, text);
    }
}

static void show_object(json_t *object, int indent)
{
    json_t *nested = json_object(), *value;
    char name[MAX_VALUE];
    const char *key;

    show_plain_members(object, indent);
    json_object_foreach(object, key, value) if (json_is_object(value)) json_object_set(nested, key, value);
    if (is_alike(nested)) {
        show_alike(nested, indent);
        json_object_clear(nested);
    }
    json_object_foreach(nested, key, value)
    {
        format_name(key, name, sizeof(name));
        printf("%*s%s:\n", indent, "", name);
        show_object(value, indent + 2);
    }
    json_object_foreach(object, key, value)
    {
        if (!json_is_array(value) || is_plain_list(value))
            continue;
        format_name(key, name, sizeof(name));
        printf("%*s%s:\n", indent, "", name);
        show_table(value, indent + 2);
    }
    json_decref(nested);
}

void output_result(const char *event, json_t *result)
{
    if (common.json) {
        json_t *object = json_pack("{s:s}", "event", event);

        if (json_is_object(result))
            json_object_update_missing(object, result);
        else if (result)
            json_object_set(object, "result", result);
        output_json(object);
        return;
    }
    if (json_is_object(result))
        show_object(result, 0);
    fflush(stdout);
}
