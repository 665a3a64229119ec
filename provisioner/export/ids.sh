# Maps the ids of process $1, the container's init, and unpacks the root as its root on the first start (descriptor 5).
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
umask 022

fail() {
    echo "$name: error: $1" >&2
    echo "$name: hint: $2" >&2
    exit 1
}

# What the file $1 lends to this user: the first id, and how many.
lent() {
    while IFS=: read -r who from count; do
        case $who in "$user" | "$me") echo "$from $((count < 65535 ? count : 65535))"; return ;; esac
    done <"$1"
    return 1
}

map() {
    # shellcheck disable=SC2046 # it is two words
    set -- "$1" "$2" "$3" $(lent "/etc/sub$3" 2>/dev/null)
    [ $# = 5 ] || fail "/etc/sub$3 lends no ids to $user" "as root: usermod --add-sub${3}s 100000-165535 $user"
    "new$3map" "$1" 0 "$2" 1 1 "$4" "$5" || fail "new$3map refuses the map" "compare /etc/sub$3"
}

echo "$1" >init
me=$(id -u)
if [ "$me" = 0 ]; then
    for kind in uid gid; do
        echo "0 $first 65536" >"/proc/$1/${kind}_map" || fail "the kernel refuses the map" "sysctl user.max_user_namespaces"
    done
else
    user=$(id -un)
    command -v newuidmap >/dev/null || fail "newuidmap is not installed" "apt install uidmap"
    map "$1" "$me" uid
    map "$1" "$(id -g)" gid
fi
[ ! -e tree/rootfs ] || exit 0
echo "$name: unpacking its root, this once" >&2
tar -xOf - "$name/rootfs.tar.gz" <&5 | nsenter -t "$1" -U -S 0 -G 0 sh -ec '
    rm -rf tree/new && mkdir tree/new # no cd: a shell goes by the whole path, in which a folder may be closed to it
    attributes=; tar --version 2>/dev/null | grep -q GNU && attributes="--xattrs --xattrs-include=*"
    tar -xzp $attributes --numeric-owner -f - -C tree/new
    sync tree/new 2>/dev/null || :
    mv tree/new tree/rootfs' || fail "its root cannot be unpacked" "df ."
