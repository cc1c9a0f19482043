/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fused/options.h"

static void sizes_are_binary_multiples(void **state)
{
    uint64_t bytes = 0;

    (void)state;
    assert_int_equal(options_parse_size("4096", &bytes), 0);
    assert_int_equal(bytes, 4096);
    assert_int_equal(options_parse_size("4G", &bytes), 0);
    assert_int_equal(bytes, UINT64_C(4) << 30);
    assert_int_equal(options_parse_size("3kiB", &bytes), 0);
    assert_int_equal(bytes, 3072);
    for (const char **bad = (const char *[]){"", "G", "-1", " 1", "1.5G", "1GG", "1P", "0x10", NULL}; *bad; bad++)
        assert_int_equal(options_parse_size(*bad, &bytes), -EINVAL);
    assert_int_equal(options_parse_size("99999999999999999999", &bytes), -ERANGE);
    assert_int_equal(options_parse_size("8388608T", &bytes), -ERANGE);
    assert_int_equal(bytes, 3072);
}

static void a_time_without_a_unit_is_in_milliseconds(void **state)
{
    uint64_t ns = 0;

    (void)state;
    assert_int_equal(parse_duration("250", &ns), 0);
    assert_int_equal(ns, 250000000);
    assert_int_equal(parse_duration("250ms", &ns), 0);
    assert_int_equal(ns, 250000000);
    assert_int_equal(parse_duration("30s", &ns), 0);
    assert_int_equal(ns, UINT64_C(30000000000));
    assert_int_equal(parse_duration("5min", &ns), 0);
    assert_int_equal(ns, UINT64_C(300000000000));
    assert_int_equal(parse_duration("5h", &ns), -EINVAL);
    assert_int_equal(parse_duration("-1s", &ns), -EINVAL);
    assert_int_equal(parse_duration("90000s", &ns), -ERANGE);
    assert_int_equal(parse_duration("18446744073709551615s", &ns), -ERANGE);
}

static void a_command_line_is_read(void **state)
{
    char *argv[] = {"leasefs",
                    "-o",
                    "pool=64M,hugepages,ro,control=/c,policy=busy,recall_timeout=2s,device=rxe0,port=7"
                    ",leased_bytes=32M,user_bytes=8M,session_bytes=4k,spare_bytes=16M,user_space=12M,user_files=300",
                    "-f",
                    "/m",
                    NULL};
    struct options o;
    int found_ro = 0;

    (void)state;
    assert_int_equal(options_parse(5, argv, &o), 0);
    assert_int_equal(o.pool_size, 64 << 20);
    assert_true(o.huge_pages && o.read_only && o.foreground && !o.no_device);
    assert_string_equal(o.control, "/c");
    assert_string_equal(o.mountpoint, "/m");
    assert_string_equal(o.device, "rxe0");
    assert_int_equal(o.port, 7);
    assert_int_equal(o.policy, LEASE_POLICY_BUSY);
    assert_int_equal(o.recall_timeout_ns, UINT64_C(2000000000));
    assert_int_equal(o.lease_time_ns, UINT64_C(30000000000));
    assert_int_equal(o.leased_bytes, 32 << 20);
    assert_int_equal(o.user_bytes, 8 << 20);
    assert_int_equal(o.spare_bytes, 16 << 20);
    assert_int_equal(o.session_bytes, 4096);
    assert_int_equal(o.user_space, 12 << 20);
    assert_int_equal(o.user_files, 300);
    for (int i = 0; i < o.fuse.argc; i++) {
        found_ro |= strstr(o.fuse.argv[i], "ro") != NULL;
        assert_null(strstr(o.fuse.argv[i], "pool"));
    }
    assert_true(found_ro);
    options_free(&o);
}

static void io_uring_is_for_libfuse_no_option(void **state)
{
    static const struct {
        const char *text;
        int err;
        enum fuse_io_uring io_uring;
    } cases[] = {{"pool=64M", 0, FUSE_IO_URING_AUTO},
                 {"pool=64M,io_uring=auto", 0, FUSE_IO_URING_AUTO},
                 {"pool=64M,io_uring=on", 0, FUSE_IO_URING_ON},
                 {"pool=64M,io_uring=off", 0, FUSE_IO_URING_OFF},
                 {"pool=64M,io_uring=yes", -EINVAL, 0}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *argv[] = {"leasefs", "-o", (char *)cases[i].text, "/m", NULL};
        struct options o;

        assert_int_equal(options_parse(4, argv, &o), cases[i].err);
        if (cases[i].err)
            continue;
        assert_int_equal(o.io_uring, cases[i].io_uring);
        for (int j = 0; j < o.fuse.argc; j++)
            assert_null(strstr(o.fuse.argv[j], "uring"));
        options_free(&o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_binary_multiples),
        cmocka_unit_test(a_time_without_a_unit_is_in_milliseconds),
        cmocka_unit_test(a_command_line_is_read),
        cmocka_unit_test(io_uring_is_for_libfuse_no_option),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
