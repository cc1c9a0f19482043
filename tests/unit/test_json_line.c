/* SPDX-License-Identifier: BSD-2-Clause */
/* lease/json_line.h against jansson. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "json_line_check.h"

/* Is it read? */
static bool same(const char *text, size_t length)
{
    json_t *ours = json_line_load(text, length), *theirs = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
    char *our_words = ours ? json_dumps(ours, 0) : NULL, *their_words = theirs ? json_dumps(theirs, 0) : NULL;

    if (!ours != !theirs || (ours && !json_equal(ours, theirs)) ||
        (our_words && strcmp(our_words, their_words) != 0)) /* members stay in their order */
        fail_msg("%.*s: '%s', jansson: '%s'", (int)length, text, our_words ? our_words : "refused",
                 their_words ? their_words : "refused");
    if (!members_agree(text, length, theirs))
        fail_msg("%.*s: its members are not as jansson has them", (int)length, text);
    free(our_words);
    free(their_words);
    json_decref(ours);
    json_decref(theirs);
    return ours;
}

static void what_is_plain_and_what_is_not_reads_as_jansson_reads_it(void **state)
{
    static const char *const lines[] = {
        "{}",
        " { } ",
        "{\"jsonrpc\":\"2.0\",\"id\":28,\"method\":\"lease\",\"params\":{\"wait\":true,\"path\":\"/a b\"}}",
        "{ \"a\" : -12 , \"b\" : { \"c\" : null , \"d\" : false } } ",
        "{\" a\":\" b \",\"\":\"\"}",
        "{\"a\":1,\"a\":2}",
        "{\"a\":{\"b\":1,\"b\":2}}",
        "{\"a\":0,\"b\":-0,\"c\":9223372036854775807,\"d\":-9223372036854775808}",
        "{\"a\":999999999999999999,\"b\":-999999999999999999}",
        "{\"a\":9223372036854775808}",
        "{\"a\":-9223372036854775809,\"b\":9999999999999999999,\"c\":99999999999999999999}",
        "{\"a\":01}",
        "{\"a\":00}",
        "{\"a\":-}",
        "{\"a\":+1}",
        "{\"a\":1.0}",
        "{\"a\":1e3}",
        "{\"a\":1x}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,\"a\":1}",
        "{\"a\"1}",
        "{\"a\":1 \"b\":2}",
        "{\"a\":1}}",
        "{\"a\":1} x",
        "{\"a\":1",
        "{\"a\":\"b",
        "{\"a\":\"b\\n\\u00e4\\\"\"}",
        "{\"\\u0061\":1,\"a\":2}",
        "{\"a\":\"\xc3\xa4\"}",
        "{\"a\":\"\xc3\"}",
        "{\"a\":\"\x7f\"}",
        "{\"a\":\"\t\"}",
        "{\t\"a\":1}\r",
        "{\"a\":[1,2,{}]}",
        "{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":1}}}}}}}",
        "{\"a\":tru}",
        "{\"a\":trues}",
        "{\"a\":nul",
        "{\"a\":falsely}",
        "{a:1}",
        "{'a':1}",
        "{\"a\":[ ],\"b\":[ [ ] , \"c\",{\"d\":0}]}",
        "{\"a\":[1,]}",
        "{\"a\":[,1]}",
        "{\"a\":[1 2]}",
        "{\"a\":[1}",
        "{\"a\":{]}",
        "{\"a\":[[[[[[[[[1]]]]]]]]]}",
        "[]",
        "[1]",
        "1",
        "\"a\"",
        "true",
        "",
        " ",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        for (size_t length = 0; length <= strlen(lines[i]); length++)
            same(lines[i], length);
    same("{\"a\":\"b\0c\"}", 11);
    same("{\"a\0\":1}", 8);
    same("{\"a\":1}\0", 8);
}

/* Of pieces that fit often enough for objects to come to their end. */
static void random_lines_read_as_jansson_reads_them(void **state)
{
    static const char *const pieces[] = {
        "{", "{", "}", "}", "\"a\":",  "\"b\":", "\"c\":", "\"d\" : ", "1", "-7", "true", "false", "null", "[]",
        ",", ",", ",", " ", "\"x y\"", "\"",     "0",      "[",        "]", "\\", ":",    ".5",    "e1",   "\xc3\xa4"};
    const size_t n = sizeof(pieces) / sizeof(pieces[0]);
    unsigned seed = 42;
    unsigned long taken = 0;

    (void)state;
    for (int round = 0; round < 300000; round++) {
        char line[512] = "{";
        size_t length = 1;
        unsigned count = (unsigned)rand_r(&seed) % 12;

        for (unsigned i = 0; i < count; i++) {
            /* A member, or any piece. */
            if (rand_r(&seed) % 8)
                length +=
                    (size_t)snprintf(line + length, sizeof(line) - length, "%s%s%s", i ? "," : "",
                                     pieces[4 + (unsigned)rand_r(&seed) % 4], pieces[8 + (unsigned)rand_r(&seed) % 6]);
            else
                length +=
                    (size_t)snprintf(line + length, sizeof(line) - length, "%s", pieces[(unsigned)rand_r(&seed) % n]);
        }
        if (rand_r(&seed) % 8)
            line[length++] = '}';
        taken += same(line, length);
    }
    assert_true(taken > 1000);
}

static void plain_members_need_no_objects(void **state)
{
    static const char line[] = "{ \"lease\" : 7, \"offset\":-9,\"mode\":\"read\" ,\"kept\":[{\"a\":\"]}\"}]}";
    static const int64_t numbers[] = {0, 7, -1, 1234567890123, INT64_MAX, INT64_MIN};
    static const char *const words[] = {"0", "7", "-1", "1234567890123", "9223372036854775807", "-9223372036854775808"};
    struct json_line_member members[4];
    json_t *object = json_loads(line, 0, NULL);

    (void)state;
    assert_int_equal(json_line_members(line, strlen(line), members, 4), 4);
    assert_int_equal(json_line_find(members, 4, "lease")->number, 7);
    assert_int_equal(json_line_find(members, 4, "offset")->number, -9);
    assert_int_equal(json_line_find(members, 4, "mode")->kind, JSON_LINE_WORD);
    assert_memory_equal(json_line_find(members, 4, "mode")->text, "read\"", 5);
    assert_int_equal(json_line_find(members, 4, "kept")->length, strlen("[{\"a\":\"]}\"}]"));
    assert_null(json_line_find(members, 4, "leas"));
    assert_null(json_line_find(members, 4, "leases"));
    assert_int_equal(json_line_members(line, strlen(line), members, 3), -1); /* more than there is room for */
    assert_int_equal(json_line_members("{\"a\":1,\"a\":2}", 13, members, 4), -1);
    assert_int_equal(json_line_members("{\"a\":true}", 10, members, 4), -1);
    assert_int_equal(json_line_members("{\"a\":[\"", 7, members, 4), -1);
    assert_int_equal(json_line_members("{}", 2, members, 0), 0);

    assert_int_equal(json_line_members_of(object, members, 4), 4);
    assert_int_equal(json_line_find(members, 4, "lease")->number, 7);
    assert_int_equal(json_line_find(members, 4, "mode")->length, 4);
    assert_int_equal(json_line_find(members, 4, "kept")->kind, JSON_LINE_NESTED);
    assert_int_equal(json_line_members_of(object, members, 3), -1);
    for (size_t i = 0; i < 6; i++) {
        char number[JSON_LINE_NUMBER + 1];

        *json_line_put_number(number, numbers[i]) = '\0';
        assert_string_equal(number, words[i]);
    }
    assert_true(json_line_is_plain("/a b~"));
    assert_false(json_line_is_plain("/\"") || json_line_is_plain("\\") || json_line_is_plain("\xc3\xa4") ||
                 json_line_is_plain("\x7f") || json_line_is_plain("\n"));
    json_decref(object);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_plain_and_what_is_not_reads_as_jansson_reads_it),
        cmocka_unit_test(plain_members_need_no_objects),
        cmocka_unit_test(random_lines_read_as_jansson_reads_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
