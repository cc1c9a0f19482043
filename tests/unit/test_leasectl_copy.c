/* SPDX-License-Identifier: BSD-2-Clause */

/* The pipeline of a copy, and local files that are whole or not there. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tools/leasectl/local_file.h"
#include "tools/leasectl/pipeline.h"

/* ---- pipeline ---- */

#define PIECE 16

struct stage_log {
    uint64_t next; /* position expected */
    unsigned char add;
    uint64_t fail_at; /* position; 0: never */
    unsigned char *sink;
};

static int work(void *context, void *buffer, size_t length, uint64_t position, char *message)
{
    struct stage_log *log = context;
    unsigned char *bytes = buffer;

    if (log->fail_at && position >= log->fail_at) {
        strcpy(message, "the disk is full");
        return -ENOSPC;
    }
    if (position != log->next) {
        strcpy(message, "out of order");
        return -EILSEQ;
    }
    log->next += length;
    for (size_t i = 0; i < length; i++)
        bytes[i] = log->add == 1 ? (unsigned char)(position + i) : (unsigned char)(bytes[i] + log->add);
    if (log->sink)
        memcpy(log->sink + position, bytes, length);
    return 0;
}

static int run(size_t n_buffers, uint64_t total, struct stage_log *logs, char *message)
{
    unsigned char memory[8][PIECE];
    void *buffers[8];
    const struct pipeline_stage stages[] = {{work, &logs[0]}, {work, &logs[1]}, {work, &logs[2]}};
    const struct pipeline pipeline = {buffers, n_buffers, PIECE, stages, 3, total};

    for (size_t i = 0; i < n_buffers; i++)
        buffers[i] = memory[i];
    return pipeline_run(&pipeline, message);
}

static void every_piece_passes_every_stage_once_and_in_order(void **state)
{
    static const uint64_t totals[] = {1, PIECE - 1, PIECE, PIECE + 1, 10 * PIECE, 1003};

    (void)state;
    for (size_t n = 1; n <= 8; n++) {
        for (size_t t = 0; t < sizeof(totals) / sizeof(*totals); t++) {
            unsigned char sink[1024];
            struct stage_log logs[] = {{.add = 1}, {.add = 2}, {.add = 3, .sink = sink}};
            char message[PIPELINE_MESSAGE_MAX];

            assert_int_equal(run(n, totals[t], logs, message), 0);
            assert_int_equal(logs[2].next, totals[t]);
            for (uint64_t i = 0; i < totals[t]; i++)
                assert_int_equal(sink[i], (unsigned char)(i + 5));
        }
    }
}

static void a_stage_that_fails_stops_the_others(void **state)
{
    (void)state;
    for (size_t failing = 0; failing < 3; failing++) {
        struct stage_log logs[] = {{.add = 1}, {.add = 2}, {.add = 3}};
        char message[PIPELINE_MESSAGE_MAX];

        logs[failing].fail_at = 5 * PIECE;
        assert_int_equal(run(4, 1003, logs, message), -ENOSPC);
        assert_string_equal(message, "the disk is full");
        assert_int_equal(logs[failing].next, 5 * PIECE);
    }
}

/* ---- local files ---- */

static char directory[64];

static int make_directory(void **state)
{
    (void)state;
    strcpy(directory, "/tmp/test_leasectl_copy.XXXXXX");
    return mkdtemp(directory) ? chdir(directory) : -1;
}

static unsigned count_entries(void)
{
    DIR *entries = opendir(".");
    unsigned n = 0;

    for (struct dirent *entry; (entry = readdir(entries));)
        n += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
    closedir(entries);
    return n;
}

static int remove_directory(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof(command), "rm -rf %s", directory);
    return chdir("/") || system(command);
}

static void write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0640);

    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static void check_text(const char *path, const char *text)
{
    char read_back[64] = "";
    int fd = open(path, O_RDONLY);

    assert_true(fd >= 0);
    assert_true(read(fd, read_back, sizeof(read_back) - 1) >= 0);
    assert_string_equal(read_back, text);
    close(fd);
}

static void put_text(const char *path, const char *text)
{
    struct local_file file;
    char message[PIPELINE_MESSAGE_MAX];

    assert_int_equal(local_file_create(path, "name", strlen(text), &file, message), 0);
    assert_int_equal(write(file.fd, text, strlen(text)), strlen(text));
    assert_int_equal(local_file_publish(&file, message), 0);
}

static void a_published_file_appears_whole(void **state)
{
    (void)state;
    put_text("new", "hello");
    check_text("new", "hello");
    assert_int_equal(count_entries(), 1);
}

static void a_published_file_replaces_the_old_one_and_keeps_its_mode(void **state)
{
    struct stat now;

    (void)state;
    write_text("old", "old bytes, longer");
    put_text("old", "new");
    check_text("old", "new");
    assert_int_equal(stat("old", &now), 0);
    assert_int_equal(now.st_mode & 0777, 0640);
    assert_int_equal(count_entries(), 1);
}

static void a_symbolic_link_is_followed(void **state)
{
    struct stat now;

    (void)state;
    write_text("real", "old");
    assert_int_equal(symlink("real", "link"), 0);
    put_text("link", "new");
    check_text("real", "new");
    assert_int_equal(lstat("link", &now), 0);
    assert_true(S_ISLNK(now.st_mode));
}

static void in_a_directory_it_has_its_own_name(void **state)
{
    (void)state;
    assert_int_equal(mkdir("dir", 0755), 0);
    put_text("dir", "inside");
    check_text("dir/name", "inside");
    assert_int_equal(mkdir("dir2", 0755), 0);
    put_text("dir2/", "inside");
    check_text("dir2/name", "inside");
}

static void an_abandoned_file_leaves_nothing(void **state)
{
    struct local_file file;
    char message[PIPELINE_MESSAGE_MAX];

    (void)state;
    write_text("old", "old");
    assert_int_equal(local_file_create("old", "name", 5, &file, message), 0);
    assert_int_equal(write(file.fd, "par", 3), 3);
    local_file_abandon(&file);
    check_text("old", "old");
    assert_int_equal(count_entries(), 1);
}

static void a_signal_in_the_middle_leaves_nothing(void **state)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGKILL};
    int status;

    (void)state;
    write_text("old", "old");
    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
        pid_t child = fork();

        if (child == 0) {
            struct local_file file;
            char message[PIPELINE_MESSAGE_MAX];

            if (local_file_create("old", "name", 5, &file, message) || write(file.fd, "par", 3) != 3)
                _exit(1);
            raise(numbers[i]);
            _exit(2);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == numbers[i]);
        check_text("old", "old");
        assert_int_equal(count_entries(), 1);
    }
}

static void a_place_that_cannot_be_written_is_named(void **state)
{
    struct local_file file;
    char message[PIPELINE_MESSAGE_MAX];

    (void)state;
    assert_int_equal(local_file_create("no/such/file", "name", 5, &file, message), -ENOENT);
    assert_non_null(strstr(message, "no/such/file"));
    assert_int_equal(mkdir("dir", 0755), 0);
    assert_int_equal(mkdir("dir/name", 0755), 0);
    assert_int_equal(local_file_create("dir", "name", 5, &file, message), -EISDIR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_piece_passes_every_stage_once_and_in_order),
        cmocka_unit_test(a_stage_that_fails_stops_the_others),
        cmocka_unit_test_setup_teardown(a_published_file_appears_whole, make_directory, remove_directory),
        cmocka_unit_test_setup_teardown(a_published_file_replaces_the_old_one_and_keeps_its_mode, make_directory,
                                        remove_directory),
        cmocka_unit_test_setup_teardown(a_symbolic_link_is_followed, make_directory, remove_directory),
        cmocka_unit_test_setup_teardown(in_a_directory_it_has_its_own_name, make_directory, remove_directory),
        cmocka_unit_test_setup_teardown(an_abandoned_file_leaves_nothing, make_directory, remove_directory),
        cmocka_unit_test_setup_teardown(a_signal_in_the_middle_leaves_nothing, make_directory, remove_directory),
        cmocka_unit_test_setup_teardown(a_place_that_cannot_be_written_is_named, make_directory, remove_directory),
    };

    alarm(60);
    return cmocka_run_group_tests_name("leasectl_copy", tests, NULL, NULL);
}
