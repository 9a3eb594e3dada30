# What `with-mariadb` and `with-redis` have in common; sourced, with `name`, `ready_within_s` (from its start, on a machine that
# builds something else beside) and `ends_within_s` set. Gives `dir`, a folder that goes with the script, takes the server's
# process id in `server`, and ends that with the script: by the word, and after `ends_within_s` seconds by force.

# A socket's path holds 107 bytes: short, whatever TMPDIR says.
dir=$(mktemp -d "/tmp/segue-$name.XXXXXX")
server=
end() {
    trap - EXIT INT TERM
    if [ -n "$server" ] && kill -TERM "$server" 2>/dev/null; then
        for ((n = 0; n < ends_within_s * 10; n++)); do
            kill -0 "$server" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$dir"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

failed() {
    echo "with-$name: $1; its log:" >&2
    tail -n 40 "$dir/log" >&2 || true
    exit 1
}

# Waits until the command given succeeds.
ready() {
    for ((n = 0; ; n++)); do
        kill -0 "$server" 2>/dev/null || failed "the server ended"
        "$@" >/dev/null 2>&1 && break
        ((n < ready_within_s * 5)) || failed "the server was not ready within $ready_within_s s"
        sleep 0.2
    done
}
