/* SPDX-License-Identifier: BSD-2-Clause */

/* Sizes, ranges, times and names of files as people write them. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tools/leasectl/target.h"
#include "tools/leasectl/units.h"

static void sizes_have_suffixes_of_powers_of_1024(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"0", 0},
        {"4096", 4096},
        {"1k", 1024},
        {"64K", 65536},
        {"1M", 1048576},
        {"2GiB", 2147483648u},
        {"1TB", 1099511627776},
        {"7E", 7ull << 60},
        {"9223372036854775807", INT64_MAX},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        uint64_t bytes = 99;

        assert_int_equal(parse_size(good[i].text, &bytes), 0);
        assert_int_equal(bytes, good[i].bytes);
    }
}

static void what_is_no_size_changes_nothing(void **state)
{
    static const struct {
        const char *text;
        int status;
    } bad[] = {
        {"", -EINVAL},
        {"K", -EINVAL},
        {"-1", -EINVAL},
        {" 1", -EINVAL},
        {"+1", -EINVAL},
        {"1.5G", -EINVAL},
        {"1Kx", -EINVAL},
        {"1KiBs", -EINVAL},
        {"8E", -ERANGE},
        {"99999999999999999999", -ERANGE},
        {"9223372036854775808", -ERANGE},
        {"0x10", -EINVAL},
        {"1 K", -EINVAL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        uint64_t bytes = 99;

        assert_int_equal(parse_size(bad[i].text, &bytes), bad[i].status);
        assert_int_equal(bytes, 99);
    }
}

static void a_range_without_length_reaches_to_the_end(void **state)
{
    uint64_t offset, length;

    (void)state;
    assert_int_equal(parse_range("1M:4K", &offset, &length), 0);
    assert_int_equal(offset, 1048576);
    assert_int_equal(length, 4096);
    assert_int_equal(parse_range("8K:", &offset, &length), 0);
    assert_int_equal(length, 0);
    assert_int_equal(parse_range("8K", &offset, &length), 0);
    assert_int_equal(offset, 8192);
    assert_int_equal(parse_range(":8K", &offset, &length), -EINVAL);
    assert_int_equal(parse_range("1:2:3", &offset, &length), -EINVAL);
    assert_int_equal(parse_range("4611686018427387904:4611686018427387904", &offset, &length), -ERANGE);
    assert_int_equal(parse_range("1111111111111111111111111111111111111:1", &offset, &length), -EINVAL);
}

static void times_have_fractions(void **state)
{
    uint64_t ms;

    (void)state;
    assert_int_equal(parse_seconds("2", &ms), 0);
    assert_int_equal(ms, 2000);
    assert_int_equal(parse_seconds("0.25", &ms), 0);
    assert_int_equal(ms, 250);
    assert_int_equal(parse_seconds("1.0009", &ms), 0);
    assert_int_equal(ms, 1000);
    assert_int_equal(parse_seconds("1.", &ms), -EINVAL);
    assert_int_equal(parse_seconds(".5", &ms), -EINVAL);
    assert_int_equal(parse_seconds("2s", &ms), -EINVAL);
    assert_int_equal(parse_seconds("99999999999", &ms), -ERANGE);
}

static void sizes_are_shown_short(void **state)
{
    char text[32];

    (void)state;
    assert_string_equal(format_size(0, text, sizeof(text)), "0 B");
    assert_string_equal(format_size(1023, text, sizeof(text)), "1023 B");
    assert_string_equal(format_size(1024, text, sizeof(text)), "1.0 KiB");
    assert_string_equal(format_size(1024 * 1024 - 1, text, sizeof(text)), "1.0 MiB");
    assert_string_equal(format_size(UINT64_MAX, text, sizeof(text)), "16.0 EiB");
}

/* A mount at "mnt", with its own "/" there. */
static long ask_mount(const char *path, const char *name, void *value, unsigned long size)
{
    const char *answer = NULL;
    char inside[64];

    if (strncmp(path, "mnt", 3) || strstr(path, "missing"))
        return -1;
    if (!strcmp(name, "user.leasefs.control"))
        answer = "/run/lfs.sock";
    else if (!strcmp(name, "user.leasefs.path")) {
        snprintf(inside, sizeof(inside), "%s", path[3] && path[4] ? path + 3 : "/");
        if (strlen(inside) > 1 && inside[strlen(inside) - 1] == '/')
            inside[strlen(inside) - 1] = '\0';
        answer = inside;
    }
    if (!answer || strlen(answer) > size)
        return -1;
    memcpy(value, answer, strlen(answer));
    return (long)strlen(answer);
}

static void check_target(const char *text, const char *host, const char *path, const char *control)
{
    struct target target;

    assert_int_equal(target_parse(text, ask_mount, &target), 0);
    assert_string_equal(target.host ? target.host : "-", host ? host : "-");
    assert_string_equal(target.path, path);
    assert_string_equal(target.control ? target.control : "-", control ? control : "-");
    target_clear(&target);
}

static void a_host_stands_before_the_first_colon(void **state)
{
    (void)state;
    check_target("host:/dir/file", "host", "/dir/file", NULL);
    check_target(":/file", NULL, "/file", NULL);
    check_target("10.99.0.1:/a:b", "10.99.0.1", "/a:b", NULL);
    check_target("[fe80::1%eth0]:/file", "fe80::1%eth0", "/file", NULL);
    check_target("[]:/file", NULL, "/file", NULL);
    check_target("/plain/a:b", NULL, "/plain/a:b", NULL);
}

static void a_path_on_a_mount_is_translated(void **state)
{
    (void)state;
    check_target("mnt/dir/file", NULL, "/dir/file", "/run/lfs.sock");
    check_target("mnt/dir/missing", NULL, "/dir/missing", "/run/lfs.sock");
    check_target("mnt/dir/", NULL, "/dir/", "/run/lfs.sock");
    check_target("mnt", NULL, "/", "/run/lfs.sock");
    check_target("mnt/missing", NULL, "/missing", "/run/lfs.sock");
}

static void what_names_no_file_is_refused(void **state)
{
    static const char *const bad[] = {"", "host:file", "host:", "relative", "./relative", "[fe80::1]/file", "[x"};
    struct target target = {.path = (char *)"untouched"};

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_int_equal(target_parse(bad[i], ask_mount, &target), -EINVAL);
    assert_string_equal(target.path, "untouched");
}

static void a_directory_gets_the_name_of_the_source(void **state)
{
    struct target target;

    (void)state;
    assert_int_equal(target_parse(":/dir/", ask_mount, &target), 0);
    assert_int_equal(target_complete(&target, "/some/where/file.bin"), 0);
    assert_string_equal(target.path, "/dir/file.bin");
    assert_int_equal(target_complete(&target, "other"), 0);
    assert_string_equal(target.path, "/dir/file.bin");
    target_clear(&target);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_have_suffixes_of_powers_of_1024),
        cmocka_unit_test(what_is_no_size_changes_nothing),
        cmocka_unit_test(a_range_without_length_reaches_to_the_end),
        cmocka_unit_test(times_have_fractions),
        cmocka_unit_test(sizes_are_shown_short),
        cmocka_unit_test(a_host_stands_before_the_first_colon),
        cmocka_unit_test(a_path_on_a_mount_is_translated),
        cmocka_unit_test(what_names_no_file_is_refused),
        cmocka_unit_test(a_directory_gets_the_name_of_the_source),
    };

    return cmocka_run_group_tests_name("leasectl_arguments", tests, NULL, NULL);
}
