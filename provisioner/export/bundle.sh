# A container that starts itself. This file is a tar (tar -tf shows it) whose first header is this script.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
umask 022

say() { echo "$name: $1" >&2; }
fail() {
    say "error: $1"
    [ -z "${2-}" ] || say "hint: $2"
    exit 125
}

usage() {
    cat <<END
usage: $0 [-p [ADDRESS:]HOST:CONTAINER[/udp]]... [--dir DIR]

Starts the container $name in the foreground; its status is the container's.
  -p       publish a port (needs pasta); ADDRESS is 127.0.0.1 unless it is said
  --dir    where it lives: root and data in DIR/$name (default: $default)
END
}

publish() {
    word=${1%/tcp} flag=-t
    case $word in */udp) word=${word%/udp} flag=-u ;; esac
    inside=${word##*:} rest=${word%:*}
    case $rest in *:*) at=${rest%:*} ;; *) at=%lo ;; esac
    case ${at#%lo}$inside${rest##*:} in
    *[!0-9.]* | "") fail "-p $1: is not [ADDRESS:]HOST:CONTAINER[/udp]" ;;
    esac
    published=1 forwards="$forwards $flag $at/${rest##*:}:$inside"
}

# The network of process $1, which waits for it: pasta's, run as the container's root where that is not this user.
wire() {
    as='' where=$1
    [ "$me" != 0 ] || as="nsenter -t $1 -U -S 0 -G 0" where="--netns-only --netns /proc/$1/ns/net"
    if command -v pasta >/dev/null && $as test -w /dev/net/tun; then
        case $forwards in *" -t "*) ;; *) forwards="$forwards -t none" ;; esac
        case $forwards in *" -u "*) ;; *) forwards="$forwards -u none" ;; esac
        # shellcheck disable=SC2086 # these are lists of words
        $as pasta --config-net --quiet --no-map-gw --ns-ifname eth0 -T none -U none $forwards $where
    elif [ -n "$published" ]; then
        say "error: -p needs pasta and /dev/net/tun"
        say "hint: apt install passt; chmod 666 /dev/net/tun"
        return 1
    elif [ "$me" = 0 ] && command -v ip >/dev/null; then
        link "$1" && say "$address, reached from this machine alone (with pasta it has this machine's network)"
    else
        say "note: it has no network: that needs pasta and /dev/net/tun (apt install passt)"
    fi
}

# A link between the host and process $1 alone, as root without pasta has it.
link() {
    ip -force -batch - 2>/dev/null <<END
link delete $outer
END
    ip -batch - <<END &&
link add $outer type veth peer name eth0 netns $1
link set $outer up
END
        nsenter -t "$1" -n ip -batch - <<END &&
address add $address/32 dev eth0
link set eth0 up
route add default dev eth0
END
        ip route replace "$address/32" dev "$outer" # last: who asks for a neighbour too early waits a second
}

# Beside the start: hears when the network may be attached, and what the start has to say.
attach() {
    exec 3<born 4>go 6<result 9>&-
    if [ "$(head -c 1 <&3)" = b ]; then
        read -r init <init
        wire "$init" && printf g >&4
    fi
    exec 4>&-
    sed 's/^+//' <&6 >&2
}

# Stands a pipe of the container's own, called $2, before our stream $1, unless that is a device: many services open
# /dev/stdout, and nobody inside may open a file or a pipe of ours, nor anybody a socket, as the journal's is.
relay() {
    [ ! -c "/proc/self/fd/$1" ] || return 0
    mkfifo -m 622 "$2" || exit 125
    [ "$me" != 0 ] || chown "$first:$first" "$2"
    cat <"$2" >&"$1" 9>&- &
    eval "exec $1>$2"
}

me=$(id -u) forwards='' published=''
default=${XDG_DATA_HOME:-${HOME-}/.local/share}/mktemplate-bundle
[ "$me" != 0 ] || default=/var/lib/mktemplate-bundle
dir=$default
while [ $# -gt 0 ]; do
    case $1 in
    -p | --publish) [ $# -gt 1 ] || fail "$1 needs a port"; publish "$2"; shift ;;
    --dir) [ $# -gt 1 ] || fail "$1 needs a folder"; dir=$2; shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
    esac
    shift
done
case $0 in /*) self=$0 ;; *) self=$PWD/$0 ;; esac
[ -d "$dir/$name" ] || mkdir -p "$dir/$name" || exit 125
cd "$dir/$name" || exit 125
exec 9>lock || exit 125
flock -n 9 || fail "somebody starts it just now"
[ ! -e pid ] || read -r pid <pid
[ ! "/proc/${pid:-0}/exe" -ef start ] || fail "it runs already, as process $pid"
[ ! -e version ] || read -r known <version
if [ "${known-}" != "$version" ]; then # the first start
    [ ! -e tree/rootfs ] || fail "$PWD holds another version of it" "keep both: --dir DIR"
    [ "$(uname -m)" = x86_64 ] || fail "it is for x86-64, and this machine is $(uname -m)"
    for word in tar gzip nsenter mkfifo; do
        command -v "$word" >/dev/null || fail "$word is not installed"
    done
    chmod 711 . && mkdir -p tree etc && chmod 700 tree || exit 125
    [ "$me" != 0 ] || chown "$first:$first" tree
    tar -xf "$self" -C .. "$name/start" "$name/ids" || fail "$self is damaged"
    echo "$version" >version
fi
resolver=
while read -r word server _; do
    case $word.$server in
    nameserver.127.* | nameserver.::1) ;;
    nameserver.*) resolver="${resolver}nameserver $server
" ;;
    esac
done 2>/dev/null </etc/resolv.conf
[ -n "$resolver" ] || forwards="$forwards --dns-forward 169.254.1.53" resolver="nameserver 169.254.1.53
"
printf %s "$resolver" >etc/resolv.conf
echo "$name" >etc/hostname
printf '127.0.0.1 localhost\n::1 localhost\n127.0.1.1 %s\n' "$name" >etc/hosts
rm -f born go result out err
mkfifo -m 600 born go result
echo $$ >pid
relay 1 out
relay 2 err
attach &
exec 3>born 4<go 5<"$self" 6>result
exec ./start "$name" foreground ""
