/* SPDX-License-Identifier: BSD-2-Clause */
/* A directory of a million entries: all are found, all are listed once, also while others go; and when they have gone,
 * so has what they took. (tests/fs/test_large_directory.sh has fewer, through the kernel.) */
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <unistd.h>

#include "fused/fs_private.h"
#include "tests/unit/fs_fixture.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ENTRIES   100000u /* they take several times the memory, and go by another malloc() */
#define SANITIZED 1
#else
#define ENTRIES   1000000u
#define SANITIZED 0
#endif
#define BATCH       64u
#define TABLES_MOST (64u << 10) /* bytes that tables with a place for each entry do not fit into */
#define KEPT_MOST   (32u << 20) /* bytes that malloc() may keep, of about 500 MiB */

static const char *name_of(unsigned i)
{
    static char name[32];

    snprintf(name, sizeof(name), "entry number %u", i);
    return name;
}

static uint64_t number_of(const char *name)
{
    unsigned i = UINT32_MAX;

    sscanf(name, "entry number %u", &i);
    return i;
}

/* Lists the directory and counts how often each is there. thin_out: after each batch one that was just listed is
 * removed, and one of those made last. */
static size_t list(struct fixture *f, uint64_t dir, unsigned char *seen, bool thin_out)
{
    struct fs_dir_entry entries[BATCH];
    uint64_t cookie = 0;
    size_t total = 0;
    int n;

    while ((n = fs_readdir(f->fs, dir, cookie, UINT64_MAX, false, entries, BATCH)) > 0) {
        for (int i = 0; i < n; i++) {
            uint64_t number = number_of(entries[i].name);

            if (number < ENTRIES) {
                seen[number]++;
                total++;
            }
        }
        cookie = entries[n - 1].cookie;
        for (unsigned i = 0; thin_out && i < 2; i++) {
            unsigned victim = i ? ENTRIES - 1 - (unsigned)(total / BATCH) : (unsigned)(total - BATCH / 2);

            if (victim < ENTRIES && exists(f, dir, name_of(victim)))
                assert_int_equal(fs_unlink(f->fs, dir, name_of(victim), NULL), 0);
        }
    }
    assert_int_equal(n, 0);
    return total;
}

/* Bytes that were asked for; and of all of malloc()'s memory, those that are resident. */
static size_t in_use(void)
{
    struct mallinfo2 info = mallinfo2();

    return info.uordblks + info.hblkhd;
}

static size_t resident(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    size_t pages = 0, shared = 0;

    assert_non_null(file);
    assert_int_equal(fscanf(file, "%*u %zu %zu", &pages, &shared), 2);
    fclose(file);
    return (pages - shared) * (size_t)sysconf(_SC_PAGESIZE);
}

static void a_million_entries_are_found_and_listed_once(void **state)
{
    struct fixture *f = *state;
    uint64_t dir = make_dir(f, FS_ROOT_INO, "million");
    unsigned char *seen = calloc(ENTRIES, 1);
    size_t used, before = resident();
    struct fs_entry entry;

    used = in_use();
    f->fs->max_inodes = ENTRIES + 10;
    for (unsigned i = 0; i < ENTRIES; i++) {
        assert_int_equal(fs_mknod(f->fs, dir, name_of(i), S_IFREG | 0600, 0, (struct fs_cred){0, 0}, &entry), 0);
        fs_forget(f->fs, entry.ino, 1);
    }
    assert_int_equal(fs_mknod(f->fs, dir, name_of(ENTRIES / 2), S_IFREG, 0, (struct fs_cred){0, 0}, &entry), -EEXIST);
    for (unsigned i = 0; i < ENTRIES; i += 7)
        assert_true(exists(f, dir, name_of(i)));
    assert_false(exists(f, dir, name_of(ENTRIES)));

    assert_int_equal(list(f, dir, seen, false), ENTRIES);
    for (unsigned i = 0; i < ENTRIES; i++)
        assert_int_equal(seen[i], 1);

    /* Thinned out meanwhile: who stayed is there once, who went at most once. */
    memset(seen, 0, ENTRIES);
    assert_true(list(f, dir, seen, true) < ENTRIES);
    for (unsigned i = 0; i < ENTRIES; i++)
        assert_true(seen[i] == 1 || (seen[i] == 0 && !exists(f, dir, name_of(i))));

    for (unsigned i = 0; i < ENTRIES; i++) {
        int err = fs_unlink(f->fs, dir, name_of(i), NULL);

        assert_true(err == 0 || err == -ENOENT);
    }
    assert_true(SANITIZED || in_use() < used + TABLES_MOST); /* the directory is still there */
    assert_true(SANITIZED || resident() < before + KEPT_MOST);
    assert_int_equal(fs_rmdir(f->fs, FS_ROOT_INO, "million"), 0);
    fs_forget(f->fs, dir, 1);
    free(seen);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_million_entries_are_found_and_listed_once, fixture_setup, fixture_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
