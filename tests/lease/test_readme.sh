#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The commands that README.md shows work and print what it says, on a machine without RDMA.
# shellcheck source=tests/lease/lib.sh
. "$(dirname "$0")/lib.sh"
here=$(cd "$(dirname "$0")" && pwd)

# The programs as the examples call them, but on a control socket of this test.
mkdir "$dir/bin" "$dir/work"
printf '#!/bin/sh\nexec "%s" -o "control=%s,device=none" "$@"\n' "$LEASEFS" "$control" >"$dir/bin/leasefs"
cat >"$dir/bin/leasectl" <<END
#!/bin/sh
case \$1 in --server) exec "$LEASECTL" "\$@" ;; esac
exec "$LEASECTL" "\$@" --control="$control"
END
chmod +x "$dir/bin/leasefs" "$dir/bin/leasectl"
PATH=$dir/bin:$PATH README_MOUNT=$mnt README_DIRECTORY=$dir/work python3 "$here/readme.py" "$here/../../README.md" anywhere
is_mounted && fail "the examples left a mount"
exit 0
