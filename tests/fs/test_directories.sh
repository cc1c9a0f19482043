#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Reading large directories while they change: what stays is seen once, also by another name, and it comes to an end.
. "$(dirname "$0")/lib.sh"
mount_fs pool=16M
cd "$mnt"

python3 - <<'PY'
import os
os.mkdir("d")
stay = {f"stay{i:05d}" for i in range(5000)}
for n in sorted(stay):
    open("d/" + n, "w").close()
for i in range(2000):
    open(f"d/go{i:05d}", "w").close()

# Enumerate, removing, adding and renaming others meanwhile.
seen = []
with os.scandir("d") as it:
    for i, e in enumerate(it):
        seen.append(e.name)
        if i < 2000:
            os.unlink(f"d/go{i:05d}")
        if i % 10 == 0:
            open(f"d/come{i:05d}", "w").close()
        if i % 10 == 5:
            os.rename(f"d/come{i - 5:05d}", f"d/came{i:05d}")
assert len(seen) == len(set(seen)), "an entry was seen twice"
assert stay <= set(seen), "an entry was missed"

# rm -r as simple programs do it: one pass.
for n in os.listdir("d"):
    os.unlink("d/" + n)
os.rmdir("d")

# A deep tree, and the same names in many directories.
path = "t"
for i in range(100):
    os.mkdir(path)
    open(path + "/same", "w").write(str(i))
    path += "/t"
assert open("t/t/t/same").read() == "2"
PY
# What a program makes for each name that it reads does not keep it reading (xfstests generic/736, generic/676); back at the
# start it is shown.
mkdir each
perl - <<'PL'
use strict;
use warnings;
use constant N => 3000;
sub make { open(my $file, ">", $_[0]) or die "$_[0]: $!" }
make("each/file$_") for 1 .. N;

# Reads on from where the directory is; calls a function for each name. How often each name was there.
sub all {
    my ($dir, $each) = @_;
    my (%seen, $n);
    while (defined(my $name = readdir($dir))) {
        next if $name =~ /^\.\.?$/;
        $seen{$name}++;
        $n++ < 3 * N or die "reading does not end";
        $each->($name);
    }
    return \%seen;
}
sub whole { # each of them once, and no other
    my ($what, $seen, $n) = @_;
    my @twice = grep { $seen->{$_} > 1 } keys %$seen;
    die "$what: @twice twice" if @twice;
    die "$what: " . keys(%$seen) . " names" if keys(%$seen) != $n;
}

opendir(my $dir, "each") or die;
whole("renamed and back", all($dir, sub { rename("each/$_[0]", "each/TEMP") && rename("each/TEMP", "each/$_[0]") or die $! }), N);
rewinddir($dir);
whole("copied", all($dir, sub { make("each/$_[0].copy") }), N);
rewinddir($dir);
whole("with copies", all($dir, sub { }), 2 * N);

# Renamed before they are read, all of them: by their new names.
rewinddir($dir);
readdir($dir) for 1 .. 2;
for my $i (1 .. N) {
    rename("each/file$i", "each/name$i") && rename("each/file$i.copy", "each/name$i.copy") or die $!;
}
my $seen = all($dir, sub { });
whole("renamed ahead", $seen, 2 * N); # what Linux had asked for by then by the old name, the rest by the new one
for my $i (1 .. N) {
    grep { exists $seen->{"$_$i"} } qw(file name) or die "file $i was missed";
}

# Where somebody was, he comes back to; what was made since he opened it is not there.
opendir($dir, "each") or die;
readdir($dir) for 1 .. 100;
my $here = telldir($dir);
my @rest = grep { !/^\.\.?$/ } readdir($dir);
make("each/late$_") for 1 .. N;
seekdir($dir, $here);
my @again = grep { !/^\.\.?$/ } readdir($dir);
die "not the same from there: " . @rest . ", " . @again if "@rest" ne "@again";
PL
rm -r each

# find reads with attributes (readdirplus); ls -f without.
expect 200 "$(find t | wc -l)"
expect 100 "$(find t -type f -size -2 | wc -l)"
find t -type f -printf '%i\n' | sort | uniq -d | grep . && fail "two files with one inode number"
rm -r t
expect 2 "$(stat -c %h .)"

# A removed directory that somebody is in is empty, and takes no new entries.
mkdir gone
(
    cd gone
    rmdir ../gone
    expect "" "$(ls)"
    refused touch x
)
cd /
unmount_fs
