#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The bash completion offers the commands of `leasectl --help`, and for each the options of its --help: no more, no less.
# shellcheck source=tests/lint/lib.sh
. "$(dirname "$0")/lib.sh"
: "${LEASECTL:?the program}"

# What bash-completion would have prepared, for the words of a line typed so far.
_init_completion() { cur=${words_typed[-1]} prev=${words_typed[-2]} words=("${words_typed[@]}") cword=$((${#words_typed[@]} - 1)); }
_filedir() { COMPREPLY=(FILE); }
# Called by the completion.
# shellcheck disable=SC2317
compopt() { :; }
# shellcheck source=tools/completion/leasectl
. tools/completion/leasectl

offered() { # WORD...: what is offered for the last word
    COMPREPLY=()
    words_typed=(leasectl "$@")
    _leasectl
    printf '%s\n' "${COMPREPLY[@]}" | sed 's/=$//' | sort -u
}
same() { # WHAT OFFERED WANTED
    [[ $2 == "$3" ]] || complain "$1: $(diff <(echo "$2") <(echo "$3") | sed -n 's/^</offered but not there:/p; s/^>/not offered:/p')"
}

commands=$("$LEASECTL" --help | sed -n 's/^  \([a-z]\+\) .*/\1/p' | sort -u)
same 'commands' "$(offered '')" "$commands"
options_of() { "$LEASECTL" "$@" --help | grep -oE '^ +(-., )? *--[a-z-]+' | grep -oE -- '--[a-z-]+' | sort -u; }
same 'options of leasectl' "$(offered --)" "$(options_of)"
for command in $commands; do
    same "options of $command" "$(offered "$command" --)" "$(options_of "$command" | grep -vx -- --version)"
done
finish
