/* SPDX-License-Identifier: BSD-2-Clause */
/* Labels: security */
/* Files of keys: what is taken, what is not, and that the line is named. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "lease/host_port.h"
#include "lease/key_file.h"

#define HEX16 "00112233445566778899aabbccddeeff"
#define GOOD  "[client a]\nkey = " HEX16 "\nuid = 1\ngid = 2\nexport = /\n"

static struct key_set *parse(const char *text, enum key_file_kind kind)
{
    struct key_set *set = NULL;
    char *why = NULL;

    if (key_file_parse(text, strlen(text), kind, &set, &why))
        fail_msg("%s: %s", text, why);
    assert_null(why);
    return set;
}

static void everything_that_is_allowed_is_understood(void **state)
{
    struct key_set *set = parse("# a comment\n; another\n\n"
                                "[client node-7.example_x@y]\r\n"
                                "  key=" HEX16 HEX16 "\t\n"
                                "uid = 4294967294\n"
                                "gid=0\n"
                                "gids = 1, 2 ,3\n"
                                "export = /models//x/:ro\n"
                                "export = /y\n"
                                "[ client  b ]\n"
                                "key = FFEEDDCCBBAA99887766554433221100\nuid = 7\ngid = 8\nexport = /a:rw",
                                KEY_FILE_SERVER);
    const struct client_key *key;

    (void)state;
    assert_int_equal(set->n_keys, 2);
    key = key_set_find(set, "b", 1);
    assert_int_equal(key->secret_size, 16);
    assert_int_equal(key->secret[0], 0xff);
    assert_int_equal(key->secret[15], 0);
    assert_string_equal(key->exports[0].path, "/a");
    assert_false(key->exports[0].read_only);
    assert_null(key_set_find(set, "bb", 2));
    key_set_free(set);
}

static void a_key_has_its_groups_and_exports(void **state)
{
    struct key_set *set = parse("[client a]\nkey = " HEX16 HEX16 "\nuid = 4294967294\ngid=0\ngids = 1, 2 ,3\n"
                                "export = /models//x/:ro\nexport = /scratch\n",
                                KEY_FILE_SERVER);
    const struct client_key *key = key_set_find(set, "a", 1);

    (void)state;
    assert_int_equal(key->secret_size, 32);
    assert_int_equal(key->uid, 4294967294u);
    assert_int_equal(key->n_groups, 3);
    assert_int_equal(key->groups[2], 3);
    assert_int_equal(key->n_exports, 2);
    assert_string_equal(key->exports[0].path, "/models/x");
    assert_true(key->exports[0].read_only);
    assert_string_equal(key->exports[1].path, "/scratch");
    key_set_free(set);
    set = parse("", KEY_FILE_SERVER); /* nobody */
    assert_int_equal(set->n_keys, 0);
    key_set_free(set);
    set = parse("[client a]\nkey = " HEX16 "\n", KEY_FILE_CLIENT);
    assert_string_equal(set->keys[0]->name, "a");
    key_set_free(set);
}

static void what_is_wrong_is_named_with_its_line(void **state)
{
    static const struct {
        const char *text, *line, *says;
    } files[] = {
        {"key = " HEX16 "\n", "line 1:", "no [client NAME] above"},
        {"[server a]\n", "line 1:", "unknown section"},
        {"[client]\n", "line 1:", "unknown section"},
        {"[client \n", "line 1:", "a section is"},
        {"[", "line 1:", "a section is"},
        {"[]\n", "line 1:", "unknown section"},
        {"[client a b]\n", "line 1:", "a client's name"},
        {"[client ../etc]\n", "line 1:", "a client's name"},
        {"[client ]\n", "line 1:", "unknown section"},
        {GOOD GOOD, "line 6:", "there already"},
        {"\n\n[client a]\nuid = 1\ngid = 1\nexport = /\n", "line 3:", "has no key"},
        {"[client a]\nkey = " HEX16 "\ngid = 1\nexport = /\n[client b]\n", "line 1:", "has no uid"},
        {"[client a]\nkey = " HEX16 "\nuid = 1\nexport = /\n", "line 1:", "has no gid"},
        {"[client a]\nkey = " HEX16 "\nuid = 1\ngid = 1\n", "line 1:", "has no export"},
        {"[client a]\nkey = 0011\n", "line 2:", "hexadecimal"},
        {"[client a]\nkey = " HEX16 "0\n", "line 2:", "hexadecimal"},
        {"[client a]\nkey = " HEX16 "0g\n", "line 2:", "hexadecimal"},
        {"[client a]\nkey = \"" HEX16 "\"\n", "line 2:", "hexadecimal"},
        {"[client a]\nkey = " HEX16 HEX16 HEX16 HEX16 "00\n", "line 2:", "hexadecimal"},
        {"[client a]\nkey = " HEX16 "\nkey = " HEX16 "\n", "line 3:", "twice"},
        {"[client a]\nuid = -1\n", "line 2:", "a uid"},
        {"[client a]\nuid = 4294967295\n", "line 2:", "a uid"},
        {"[client a]\nuid = 99999999999\n", "line 2:", "a uid"},
        {"[client a]\nuid = root\n", "line 2:", "a uid"},
        {"[client a]\nuid =\n", "line 2:", "a uid"},
        {"[client a]\ngid = 1 2\n", "line 2:", "a gid"},
        {"[client a]\ngids = \n", "line 2:", "gids"},
        {"[client a]\ngids = 1,\n", "line 2:", "gids"},
        {"[client a]\ngids = 1,,2\n", "line 2:", "gids"},
        {"[client a]\ngids = 1\ngids = 2\n", "line 3:", "twice"},
        {"[client a]\nexport = data\n", "line 2:", "an export"},
        {"[client a]\nexport = /a/../b\n", "line 2:", "an export"},
        {"[client a]\nexport = /./b\n", "line 2:", "an export"},
        {"[client a]\nexport = /..\n", "line 2:", "an export"},
        {"[client a]\nexport = :ro\n", "line 2:", "an export"},
        {"[client a]\nexport = /a\nexport = //a/\n", "line 3:", "already"},
        {"[client a]\ncolour = red\n", "line 2:", "unknown"},
        {"[client a]\nuid\n", "line 2:", "neither"},
        {"[client a]\nuid = 1\x01\n", "line 2:", "control character"},
        {"[client a]\nkey = " HEX16 "\nuid = 1\ngid = 1\nexport = /\nexport = /a:ro\n",
         "line 1:", "read-only export below"},
        {"[client a]\nkey = " HEX16 "\nuid = 1\ngid = 1\nexport = /a/b:ro\nexport = /a\n",
         "line 1:", "read-only export below"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        struct key_set *set = (struct key_set *)1;
        char *why = NULL;

        if (key_file_parse(files[i].text, strlen(files[i].text), KEY_FILE_SERVER, &set, &why) != -EINVAL)
            fail_msg("taken: %s", files[i].text);
        assert_ptr_equal(set, (struct key_set *)1);
        if (strncmp(why, files[i].line, strlen(files[i].line)) || !strstr(why, files[i].says))
            fail_msg("%s: says '%s', not '%s %s'", files[i].text, why, files[i].line, files[i].says);
        assert_null(strstr(why, "0011")); /* no part of a key gets into a log */
        free(why);
    }
}

static void a_clients_file_has_one_key_and_nothing_else(void **state)
{
    static const char *const files[] = {"", "# nothing\n", GOOD, "[client a]\n",
                                        "[client a]\nkey = " HEX16 "\n[client b]\nkey = " HEX16 "\n"};

    (void)state;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        struct key_set *set;
        char *why = NULL;

        assert_int_equal(key_file_parse(files[i], strlen(files[i]), KEY_FILE_CLIENT, &set, &why), -EINVAL);
        assert_non_null(why);
        free(why);
    }
}

static void bytes_of_any_kind_are_an_error_and_no_more(void **state)
{
    struct key_set *set;
    char bytes[512], *why;

    (void)state;
    for (unsigned seed = 0; seed < 2000; seed++) {
        unsigned n = seed * 2654435761u;

        for (size_t i = 0; i < sizeof(bytes); i++, n = n * 1103515245u + 12345u)
            bytes[i] = (char)(n >> 16);
        why = NULL;
        assert_int_equal(key_file_parse(bytes, sizeof(bytes), KEY_FILE_SERVER, &set, &why), -EINVAL);
        free(why);
    }
    /* Of a good file each end, where it is not by chance whole. */
    for (size_t length = 0; length < strlen(GOOD); length++) {
        set = NULL;
        why = NULL;
        key_file_parse(GOOD, length, KEY_FILE_SERVER, &set, &why);
        key_set_free(set);
        free(why);
    }
    memset(bytes, 0, sizeof(bytes)); /* a NUL is a control character */
    assert_int_equal(key_file_parse(bytes, sizeof(bytes), KEY_FILE_SERVER, &set, &why), -EINVAL);
    free(why);
}

static void only_the_owner_may_read_a_file_of_keys(void **state)
{
    static const mode_t modes[] = {0640, 0604, 0620, 0602, 0644, 0666};
    const char *path = "test_key_file.keys";
    struct key_set *set = NULL;
    char *why = NULL;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    (void)state;
    assert_int_equal(write(fd, GOOD, strlen(GOOD)), strlen(GOOD));
    close(fd);
    assert_int_equal(key_file_read(path, KEY_FILE_SERVER, &set, &why), 0);
    key_set_free(set);
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        assert_int_equal(chmod(path, modes[i]), 0);
        assert_int_equal(key_file_read(path, KEY_FILE_SERVER, &set, &why), -EACCES);
        assert_non_null(strstr(why, "chmod 600"));
        free(why);
    }
    unlink(path);
    assert_int_equal(key_file_read(path, KEY_FILE_SERVER, &set, &why), -ENOENT);
    free(why);
    assert_int_equal(key_file_read("/", KEY_FILE_SERVER, &set, &why), -EINVAL);
    free(why);
    assert_int_equal(mkfifo(path, 0600), 0); /* nobody writes to it: reading must not wait */
    assert_int_equal(key_file_read(path, KEY_FILE_SERVER, &set, &why), -EINVAL);
    free(why);
    unlink(path);
}

static void a_key_is_equal_only_when_all_of_it_is(void **state)
{
    static const char *const others[] = {
        "[client b]\nkey = " HEX16 "\nuid = 1\ngid = 2\nexport = /\n",
        "[client a]\nkey = 10112233445566778899aabbccddeeff\nuid = 1\ngid = 2\nexport = /\n",
        "[client a]\nkey = " HEX16 "00\nuid = 1\ngid = 2\nexport = /\n",
        "[client a]\nkey = " HEX16 "\nuid = 3\ngid = 2\nexport = /\n",
        "[client a]\nkey = " HEX16 "\nuid = 1\ngid = 3\nexport = /\n",
        "[client a]\nkey = " HEX16 "\nuid = 1\ngid = 2\ngids = 1\nexport = /\n",
        "[client a]\nkey = " HEX16 "\nuid = 1\ngid = 2\nexport = /:ro\n",
        "[client a]\nkey = " HEX16 "\nuid = 1\ngid = 2\nexport = /x\n",
        "[client a]\nkey = " HEX16 "\nuid = 1\ngid = 2\nexport = /\nexport = /x\n",
    };
    struct key_set *one = parse(GOOD, KEY_FILE_SERVER), *two = parse(GOOD, KEY_FILE_SERVER);

    (void)state;
    assert_true(client_key_equal(one->keys[0], two->keys[0]));
    key_set_free(two);
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        two = parse(others[i], KEY_FILE_SERVER);
        assert_false(client_key_equal(one->keys[0], two->keys[0]));
        key_set_free(two);
    }
    key_set_free(one);
}

static void hosts_and_ports_are_told_apart(void **state)
{
    static const struct {
        const char *text, *host;
        unsigned port;
    } good[] = {{"a", "a", 5},
                {"a:7", "a", 7},
                {"192.0.2.1:65535", "192.0.2.1", 65535},
                {"[::1]", "::1", 5},
                {"[::1]:7", "::1", 7},
                {"2001:db8::1", "2001:db8::1", 5},
                {"0.0.0.0:0", "0.0.0.0", 0}};
    static const char *const bad[] = {"", ":7", "a:", "a:x", "a:65536", "a:-1", "[::1", "[::1]x", "[]:7", "a:1234567"};
    struct host_port where;

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(host_port_parse(good[i].text, 5, &where), 0);
        assert_string_equal(where.host, good[i].host);
        assert_int_equal(where.port, good[i].port);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(host_port_parse(bad[i], 5, &where), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_that_is_allowed_is_understood),
        cmocka_unit_test(a_key_has_its_groups_and_exports),
        cmocka_unit_test(what_is_wrong_is_named_with_its_line),
        cmocka_unit_test(a_clients_file_has_one_key_and_nothing_else),
        cmocka_unit_test(bytes_of_any_kind_are_an_error_and_no_more),
        cmocka_unit_test(only_the_owner_may_read_a_file_of_keys),
        cmocka_unit_test(a_key_is_equal_only_when_all_of_it_is),
        cmocka_unit_test(hosts_and_ports_are_told_apart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
