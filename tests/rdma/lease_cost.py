#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What a lease costs beside bare verbs, in a guest whose clock counts instructions: the same on every machine, busy or not."""

import argparse
import os
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tools/bench.d"))
import rdma  # noqa: E402  pylint: disable=wrong-import-position
from samples import percentile  # noqa: E402  pylint: disable=wrong-import-position

SMALL, LARGE, HUGE = 4096, 256 << 10, 16 << 20
ROUNDS = {SMALL: 100, LARGE: 100, HUGE: 30}
EXTENT = rdma.QUICK._replace(pool="64M")
# At most, of the call alone.
REVOKE = 1.5
# At most, of the same exchange with bare verbs: until a lease's first byte. By size as by mechanism; what is not named is
# not measured.
GRANT = {
    "dereg": {SMALL: 1.45, LARGE: 0.8},
    "odp": {SMALL: 1.4, LARGE: 1.4, HUGE: 1.55},
}
SIZES = {"odp": (SMALL, LARGE, HUGE)}


def cheap(microseconds):
    """The lower quartile. In some rounds another thread's turn comes in between, with one processor, which says nothing
    of the work: 6 us more of 22, in a third of them."""
    return percentile(microseconds, 25)


def costs(options, leasefs, mechanism, size):
    """Names, microseconds of leasefs and of bare verbs, and how many times those it may take."""
    grant = GRANT.get(mechanism, {}).get(size)
    verbs = rdma.bare(options, mechanism, size, ROUNDS[size], *(["--exchange"] if grant else []))
    ours = leasefs.measure("revoke", "/data", size=size, count=ROUNDS[size], mechanism=mechanism)
    yield f"revoke.{mechanism}.{size}", cheap(ours["revoke_us"]), cheap(verbs["revoke_us"]), REVOKE
    if grant:
        ours = leasefs.measure("grant", "/data", size=size, count=ROUNDS[size])
        yield f"grant.{mechanism}.{size}", cheap(ours["first_byte_us"]), cheap(verbs["first_byte_us"]), grant


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--leasefs", default="leasefs")
    parser.add_argument("--programs", default="/usr/local/libexec/leasefs-tests")
    parser.add_argument("--device")
    options = parser.parse_args()
    failed = False
    for mechanism in rdma.MECHANISMS:
        with tempfile.TemporaryDirectory() as scratch:
            leasefs = rdma.Leasefs(options, EXTENT, scratch, rdma.ladder_of(mechanism))
            try:
                leasefs.file("data", HUGE)
                for size in SIZES.get(mechanism, (SMALL, LARGE)):
                    for name, ours, bare, bound in costs(options, leasefs, mechanism, size):
                        verdict = f"at most {bound}" if ours <= bound * bare else f"MORE THAN {bound}"
                        failed |= ours > bound * bare
                        print(f"{name}: {ours:.1f} / {bare:.1f} us of 1000 instructions: {ours / bare:.2f}, {verdict}",
                              flush=True)
            finally:
                leasefs.end()
    sys.exit(failed)


if __name__ == "__main__":
    main()
