/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests and replies as the kernel and libfuse exchange them, patched on their way. */
#include <errno.h>
#include <linux/fuse.h>

#include "fused/fuse_wire.h"
#include "tests/unit/fs_fixture.h"

enum { OP_TMPFILE = 51, OP_STATX = 52, UNIQUE = 77 };

#define PARALLEL_DIROPS    (1u << 18)
#define KILLPRIV_V2        (1u << 28)
#define SETXATTR_EXT       (1u << 29)
#define EXT                (1u << 30)
#define DIRECT_MMAP_HIGH   (1u << 4)
#define OVER_IO_URING_HIGH (1u << 9)
#define WRITE_KILL         (1u << 2)
#define PARALLEL_WRITES    (1u << 6)
#define STATX_REPLY_BYTES  304

struct request {
    struct fuse_in_header header;
    char body[200];
};

static struct request request_of(uint32_t opcode, const void *body, size_t size)
{
    struct request request = {.header = {.opcode = opcode, .unique = UNIQUE, .nodeid = FS_ROOT_INO}};

    memcpy(request.body, body, size);
    request.header.len = (uint32_t)(sizeof(request.header) + size);
    return request;
}

static void init_with(struct fuse_wire *wire, uint32_t flags, uint32_t flags2)
{
    struct fuse_init_in in = {.major = 7, .minor = 36, .flags = flags, .flags2 = flags2};
    struct request request = request_of(FUSE_INIT, &in, sizeof(in));

    assert_false(fuse_wire_request(wire, &request, request.header.len));
}

static void send_reply(struct fuse_wire *wire, uint64_t unique, int error, void *body, size_t size)
{
    struct fuse_out_header header = {.unique = unique, .error = error};
    struct iovec iov[2] = {{&header, sizeof(header)}, {body, size}};

    fuse_wire_reply(wire, iov, 2);
}

static void init_is_answered_with_what_the_kernel_offered(void **state)
{
    struct fuse_wire wire = {0};
    struct fuse_init_out out = {.flags = EXT};

    (void)state;
    init_with(&wire, PARALLEL_DIROPS | KILLPRIV_V2 | EXT, DIRECT_MMAP_HIGH);
    send_reply(&wire, UNIQUE, 0, &out, sizeof(out));
    assert_int_equal(out.flags, PARALLEL_DIROPS | KILLPRIV_V2 | EXT);
    assert_int_equal(out.flags2, DIRECT_MMAP_HIGH);
}

static void io_uring_is_taken_only_when_offered_and_made(void **state)
{
    static const struct {
        uint32_t offered;
        bool made;
        uint32_t taken;
    } cases[] = {
        {0, false, 0}, {0, true, 0}, {OVER_IO_URING_HIGH, false, 0}, {OVER_IO_URING_HIGH, true, OVER_IO_URING_HIGH}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fuse_wire wire = {.over_io_uring = cases[i].made};
        struct fuse_init_out out = {.flags = EXT};

        init_with(&wire, EXT, cases[i].offered);
        assert_int_equal(fuse_wire_offers_io_uring(&wire), cases[i].offered != 0);
        send_reply(&wire, UNIQUE, 0, &out, sizeof(out));
        assert_int_equal(out.flags2, cases[i].taken);
    }
}

static void the_reply_to_init_is_known(void **state)
{
    struct fuse_wire wire = {0};
    struct fuse_init_out out = {0};
    struct fuse_out_header header = {.unique = UNIQUE};
    struct iovec iov[2] = {{&header, sizeof(header)}, {&out, sizeof(out)}};

    (void)state;
    assert_false(fuse_wire_is_init_reply(&wire, iov, 2)); /* there was no INIT */
    init_with(&wire, EXT, 0);
    assert_true(fuse_wire_is_init_reply(&wire, iov, 2));
    assert_false(fuse_wire_is_init_reply(&wire, iov, 1));
    iov[1].iov_len--;
    assert_false(fuse_wire_is_init_reply(&wire, iov, 2));
    iov[1].iov_len++;
    header.error = -EPROTO;
    assert_false(fuse_wire_is_init_reply(&wire, iov, 2));
    header = (struct fuse_out_header){.unique = UNIQUE + 2};
    assert_false(fuse_wire_is_init_reply(&wire, iov, 2));
}

static void direct_handles_want_a_kernel_that_keeps_them_coherent(void **state)
{
    struct fuse_wire wire = {0};

    (void)state;
    init_with(&wire, PARALLEL_DIROPS | EXT, 0);
    assert_false(fuse_wire_direct_handles(&wire, "7.2.0"));
    init_with(&wire, PARALLEL_DIROPS | EXT, DIRECT_MMAP_HIGH);
    assert_true(fuse_wire_direct_handles(&wire, "7.2.0"));
    assert_true(fuse_wire_direct_handles(&wire, "6.19-rc1"));
    assert_true(fuse_wire_direct_handles(&wire, "6.18.10"));
    assert_false(fuse_wire_direct_handles(&wire, "6.18.9"));
    assert_false(fuse_wire_direct_handles(&wire, "6.12.99+deb13-amd64"));
    assert_false(fuse_wire_direct_handles(&wire, "5.19.0"));
    assert_false(fuse_wire_direct_handles(&wire, "unknown"));
}

static void an_old_kernel_is_asked_for_nothing_it_does_not_know(void **state)
{
    struct fuse_wire wire = {0};
    struct fuse_init_out out = {0};
    uint32_t write_flags = WRITE_KILL;
    struct fuse_write_in in = {.write_flags = write_flags};
    struct request request = request_of(FUSE_WRITE, &in, sizeof(in));

    (void)state;
    init_with(&wire, PARALLEL_DIROPS, DIRECT_MMAP_HIGH);
    send_reply(&wire, UNIQUE, 0, &out, sizeof(out));
    assert_int_equal(out.flags, PARALLEL_DIROPS);
    assert_int_equal(out.flags2, 0);
    fuse_wire_request(&wire, &request, request.header.len);
    assert_true(fuse_wire_kill_priv(true));
    assert_false(fuse_wire_kill_priv(false));
}

static void only_the_writes_that_say_so_clear_set_user_id(void **state)
{
    struct fuse_wire wire = {0};
    struct fuse_write_in in = {.write_flags = WRITE_KILL};
    struct request request;

    (void)state;
    init_with(&wire, KILLPRIV_V2, 0);
    request = request_of(FUSE_WRITE, &in, sizeof(in));
    fuse_wire_request(&wire, &request, request.header.len);
    assert_true(fuse_wire_kill_priv(false));
    in.write_flags = 0;
    request = request_of(FUSE_WRITE, &in, sizeof(in));
    fuse_wire_request(&wire, &request, request.header.len);
    assert_false(fuse_wire_kill_priv(true));
    /* What carries no such flag is judged by the caller. */
    request = request_of(FUSE_FALLOCATE, &in, sizeof(in));
    fuse_wire_request(&wire, &request, request.header.len);
    assert_true(fuse_wire_kill_priv(true));
}

static void a_long_setxattr_becomes_a_short_one(void **state)
{
    struct fuse_wire wire = {0};
    struct {
        uint32_t size, flags, more, padding;
        char name_and_value[8];
    } in = {3, 1, 1, 0, "user.a"};
    struct request request;

    (void)state;
    init_with(&wire, SETXATTR_EXT, 0);
    in.name_and_value[7] = 'v';
    request = request_of(FUSE_SETXATTR, &in, sizeof(in));
    assert_false(fuse_wire_request(&wire, &request, request.header.len));
    assert_true(fuse_wire_kill_sgid());
    assert_int_equal(request.header.len, sizeof(request.header) + sizeof(in) - 8);
    assert_memory_equal(request.body, &in, 8);
    assert_memory_equal(request.body + 8, in.name_and_value, 8);
    /* A kernel that does not offer it sends the short form. */
    init_with(&wire, 0, 0);
    request = request_of(FUSE_SETXATTR, &in, sizeof(in));
    fuse_wire_request(&wire, &request, request.header.len);
    assert_false(fuse_wire_kill_sgid());
    assert_memory_equal(request.body, &in, sizeof(in));
}

static void a_tmpfile_becomes_a_create_of_a_name_that_no_file_has(void **state)
{
    struct fuse_wire wire = {0};
    char body[sizeof(struct fuse_create_in) + 2] = {0};
    struct request request;

    (void)state;
    body[sizeof(struct fuse_create_in)] = 'x';
    request = request_of(OP_TMPFILE, body, sizeof(body));
    assert_false(fuse_wire_request(&wire, &request, request.header.len));
    assert_int_equal(request.header.opcode, FUSE_CREATE);
    assert_string_equal(request.body + sizeof(struct fuse_create_in), FUSE_WIRE_TMPFILE_NAME);
    /* One that is cut short is left as it is: libfuse refuses it. */
    request = request_of(OP_TMPFILE, body, sizeof(body) - 1);
    fuse_wire_request(&wire, &request, request.header.len);
    assert_int_equal(request.header.opcode, OP_TMPFILE);
}

static void short_requests_are_let_through_untouched(void **state)
{
    struct fuse_wire wire = {0};
    char bytes[100];

    (void)state;
    for (uint32_t opcode = 0; opcode < 64; opcode++) {
        for (size_t size = 0; size < sizeof(struct fuse_in_header) + 24; size++) {
            struct fuse_in_header header = {.opcode = opcode};
            /* On the heap and no larger than said, so that the sanitizer sees every byte too many. */
            char *request = malloc(size ? size : 1);

            memset(bytes, 0xff, sizeof(bytes));
            memcpy(bytes, &header, sizeof(header));
            memcpy(request, bytes, size);
            fuse_wire_request(&wire, request, size);
            free(request);
        }
    }
}

static void only_the_reply_to_an_open_is_patched(void **state)
{
    struct fuse_wire wire = {0};
    struct fuse_open_out out = {0};
    struct request request = request_of(FUSE_OPEN, "", 0);

    (void)state;
    fuse_wire_request(&wire, &request, request.header.len);
    fuse_wire_parallel_writes();
    send_reply(&wire, 0, 0, &out, sizeof(out)); /* a notification comes between */
    assert_int_equal(out.open_flags, 0);
    send_reply(&wire, UNIQUE, 0, &out, sizeof(out));
    assert_int_equal(out.open_flags, PARALLEL_WRITES);
    out.open_flags = 0;
    send_reply(&wire, UNIQUE, 0, &out, sizeof(out));
    assert_int_equal(out.open_flags, 0);
    /* The next request starts anew, and an error has no body. */
    fuse_wire_parallel_writes();
    fuse_wire_request(&wire, &request, request.header.len);
    send_reply(&wire, UNIQUE, 0, &out, sizeof(out));
    assert_int_equal(out.open_flags, 0);
    fuse_wire_parallel_writes();
    send_reply(&wire, UNIQUE, -ENOENT, &out, sizeof(out));
    assert_int_equal(out.open_flags, 0);
}

static void statx_is_answered_with_the_time_of_birth(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", 5000);
    struct fuse_wire wire = {.cache_seconds = 9};
    struct request request = request_of(OP_STATX, "", 0);
    struct timespec birth;
    struct stat attr;
    union {
        struct fuse_out_header header;
        char bytes[STATX_REPLY_BYTES];
        uint64_t words[STATX_REPLY_BYTES / 8];
    } reply;

    request.header.nodeid = ino;
    assert_int_equal(fs_statx(f->fs, ino, &attr, &birth), 0);
    assert_int_equal(fuse_wire_statx(&wire, f->fs, &request, &reply, sizeof(reply)), sizeof(reply));
    assert_int_equal(reply.header.unique, UNIQUE);
    assert_int_equal(reply.header.error, 0);
    /* struct statx lies behind the header and 32 bytes more. */
    assert_int_equal(reply.words[2], 9);
    assert_int_equal(reply.words[6 + 4], ino);
    assert_int_equal(reply.words[6 + 5], 5000);
    assert_int_equal(reply.words[6 + 10], birth.tv_sec);
    request.header.nodeid = 999;
    assert_int_equal(fuse_wire_statx(&wire, f->fs, &request, &reply, sizeof(reply)), sizeof(reply.header));
    assert_int_equal(reply.header.error, -ESTALE);
    assert_int_equal(fuse_wire_statx(&wire, f->fs, &request, &reply, sizeof(reply) - 1), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(init_is_answered_with_what_the_kernel_offered),
        cmocka_unit_test(io_uring_is_taken_only_when_offered_and_made),
        cmocka_unit_test(the_reply_to_init_is_known),
        cmocka_unit_test(direct_handles_want_a_kernel_that_keeps_them_coherent),
        cmocka_unit_test(an_old_kernel_is_asked_for_nothing_it_does_not_know),
        cmocka_unit_test(only_the_writes_that_say_so_clear_set_user_id),
        cmocka_unit_test(a_long_setxattr_becomes_a_short_one),
        cmocka_unit_test(a_tmpfile_becomes_a_create_of_a_name_that_no_file_has),
        cmocka_unit_test(short_requests_are_let_through_untouched),
        cmocka_unit_test(only_the_reply_to_an_open_is_patched),
        cmocka_unit_test_setup_teardown(statx_is_answered_with_the_time_of_birth, fixture_setup, fixture_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
