"""Perls that stay, for the perl programs that maintainer scripts start again and again.

debconf's frontend and deb-systemd-helper spend their time compiling themselves and the modules that they use: 40 % of
configuring a Debian base. While scripts run, for each of them a perl that has compiled it waits at a socket. In place
of the program stands a shim (found first in PATH, or bound over the file by the sandbox: its bytes stay untouched),
which hands its descriptors to the resident; that forks, becomes like the caller in arguments, environment and
directory, and runs. Where the caller is unlike it in user, language or ignored signals, the resident declines before
anything has happened, and the shim becomes the original. So what scripts do is the same with it and without it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from provisioner.inside import content, put, read

FOLDER = b"/.mktemplate/perl"
PERL = b"/usr/bin/perl"
IN_PATH = (b"/usr/bin/deb-systemd-helper",)  # scripts call it by name
BY_PATH = (b"/usr/share/debconf/frontend",)  # confmodule(3) calls it so
_FIRST = re.compile(rb"#! ?/usr/bin/perl( -w)?\n")
# System calls that perl has no function for, by machine in the ELF header of a 64-bit little-endian perl.
_CALLS = {
    b"\x3e\0": {"SENDMSG": b"46", "RECVMSG": b"47", "CLOSE": b"3", "DUP3": b"292", "EXIT": b"231"},
    b"\xb7\0": {"SENDMSG": b"211", "RECVMSG": b"212", "CLOSE": b"57", "DUP3": b"24", "EXIT": b"94"},
}
_ELF64 = b"\x7fELF\x02\x01"

# It loads no module: then perl starts in 1.5 ms. Socket type 5 is SOCK_SEQPACKET, one message for one read; what is
# packed are struct cmsghdr with SCM_RIGHTS, iovec, msghdr; 02000000 is O_CLOEXEC.
_SHIM = b"""\
#!/usr/bin/perl
my ($door, $answer, $folder, @open);
sub begun {
    socket($door, 1, 5, 0) or return;
    connect($door, pack("Sa*", 1, "@PLACE@.door")) or return;
    opendir($folder, "/proc/self/fdinfo") or return;
    for my $number (grep { !/\\D/ } readdir $folder) {
        open(my $facts, "<", "/proc/self/fdinfo/$number") or return;
        push @open, $number if grep { /^flags:\\s*(\\d+)/ and not oct($1) & 02000000 } <$facts>;
    }
    my $text = "$$ @open";
    my $rights = pack("Qlll*", 16 + 4 * @open, 1, 1, @open);
    my $piece = pack("PQ", $text, length $text);
    my $message = pack("QQPQPQQ", 0, 0, $piece, 1, $rights, length $rights, 0);
    return syscall(@SENDMSG@, fileno $door, $message, 0) > 0 && sysread($door, $answer, 9) && $answer eq "begun";
}
exec "/usr/bin/perl", "@PLAIN@", @ARGV unless begun();
sysread($door, $answer, 9) or exit 255;
exit $answer;
"""

# Modules that a program loads only as it goes on. All others stand in its text.
_LATER = {
    b"frontend": b"""\
Debconf/FrontEnd/Noninteractive.pm Debconf/DbDriver/File.pm Debconf/DbDriver/Stack.pm Debconf/DbDriver/Cache.pm
Debconf/Format/822.pm Debconf/Element/Noninteractive/Select.pm Debconf/Element/Noninteractive/Boolean.pm
Debconf/Element/Noninteractive/String.pm Debconf/Element/Noninteractive/Note.pm"""
}

# What is done before a program's own text when all of it is compiled (perlmod(1), UNITCHECK): wait, fork, and go on.
# Its first line, `#!`, is left out.
_BEFORE = b"""\
UNITCHECK { Resident::attend(qw(@LATER@)) }
# line 2 "@ORIGINAL@"
"""

_SERVER = b"""\
package Resident;  # the program is main
use strict;
use warnings;

my $place = "@PLACE@";
$SIG{INT} = $SIG{QUIT} = 'DEFAULT';  # sh ignores them for what runs beside it
my %own = settings($$);
my $speech = speech();
socket(my $door, 1, 5, 0) or die;
bind($door, pack("Sa*", 1, "$place.door")) or die;
listen($door, 64) or die;  # from here on, whoever comes waits
chmod(0600, "$place.door");
perform();

# Wait for callers; return in a process for each of them, which has become like it.
sub attend {
    for my $module (@_) {
        require $module if grep { -e "$_/$module" } @INC;
    }
    my %running;  # by the descriptor that closes when it has ended: a handle of that, its pid, its caller
    while (1) {
        my $ready = "";
        vec($ready, $_, 1) = 1 for fileno $door, keys %running;
        next unless select($ready, undef, undef, undef) > 0;
        for my $number (grep { vec($ready, $_, 1) } keys %running) {
            my (undef, $pid, $caller) = @{delete $running{$number}};
            waitpid($pid, 0);
            syswrite($caller, $? & 127 ? 128 + ($? & 127) : $? >> 8);
        }
        next unless vec($ready, fileno $door, 1) and accept(my $caller, $door);
        pipe(my $ended, my $alive) or next;
        my $pid = fork();
        next unless defined $pid;
        return serve($caller) unless $pid;
        $running{fileno $ended} = [$ended, $pid, $caller];
    }
}

# Be what the caller wants, and tell it that this has begun.
sub serve {
    my ($caller) = @_;
    my ($pid, $files) = asked($caller) or decline();
    become($pid) or decline();
    syswrite($caller, "begun");
    close($_) for $door, $caller;
    install(%$files);
    $0 = "@ORIGINAL@";
    $^T = time;
    $! = 0;
    $@ = "";
}

# End before anything has happened.
sub decline {
    syscall(@EXIT@, 0);
}

# What the caller wants, and its descriptors: its number => ours.
sub asked {
    my ($caller) = @_;
    my ($text, $rights) = ("\\0" x 4096, "\\0" x 1040);
    my $piece = pack("PQ", $text, length $text);
    my $message = pack("QQPQPQQ", 0, 0, $piece, 1, $rights, length $rights, 0);
    my $length = syscall(@RECVMSG@, fileno $caller, $message, 0x40000000);  # MSG_CMSG_CLOEXEC
    return unless $length > 0;
    my ($pid, @numbers) = split / /, substr($text, 0, $length);
    my @files = unpack("x16l" . @numbers, $rights);
    return if grep { $_ > 99 } @numbers;
    my %files;
    @files{@numbers} = @files;
    return ($pid, \\%files);
}

# Become like the process $pid; false where it is unlike us.
sub become {
    my ($pid) = @_;
    my %its = settings($pid);
    for my $name (qw(SigIgn Uid Gid Groups)) {
        return unless defined $its{$name} and $its{$name} eq $own{$name};
    }
    %ENV = map { /^([^=]*)=(.*)$/s ? ($1 => $2) : () } split /\\0/, content("/proc/$pid/environ");
    return unless speech() eq $speech;
    (undef, undef, @ARGV) = split /\\0/, content("/proc/$pid/cmdline"), -1;
    pop @ARGV;
    umask(oct $its{Umask});
    return chdir("/proc/$pid/cwd");
}

# What a process tells of itself: its umask, its user and the signals that it ignores.
sub settings {
    my ($pid) = @_;
    return map { /^(Umask|SigIgn|Uid|Gid|Groups):\\s*(.*?)\\s*$/ ? ($1 => $2) : () }
        split /\\n/, content("/proc/$pid/status");
}

# The part of the environment that perl and its modules look at when they begin.
sub speech {
    return join "\\0", map { "$_=$ENV{$_}" } sort grep { /^(?:LC_|LANG|POSIXLY|PERL(?!_DL_NONLAZY))/ } keys %ENV;
}

sub content {
    my ($path) = @_;
    open(my $file, "<", $path) or return "";
    local $/;
    return <$file> // "";
}

# Put descriptors where the caller has them; nothing else stays open.
sub install {
    my %files = @_;
    syscall(@DUP3@, $files{$_}, 100 + $_, 0) for keys %files;
    syscall(@CLOSE@, $_) for 0 .. 2, values %files;
    for my $number (keys %files) {
        syscall(@DUP3@, 100 + $number, 0 + $number, 0);
        syscall(@CLOSE@, 100 + $number);
    }
}

# Be the program, as perl would have been, once `attend` has found somebody to be it for.
sub perform {
    $^W = @WARNING@;
    do "$place.text";
    if ($@ ne "") {
        my $status = $! + 0 || ($? >> 8) || 255;
        print STDERR $@;
        exit $status;
    }
    exit 0;
}
"""


def covers(shims: bytes) -> dict[str, str]:
    """Return which file of the folder `shims` is to be seen in place of which program."""
    return {path.decode(): f"{(shims + path[path.rindex(b'/') :]).decode()}" for path in BY_PATH}


def lay(shims: bytes, originals: Mapping[str, int]) -> None:
    """Lay out residents, and their shims in `shims`; runs inside the root.

    `originals`: what is covered by shims that are empty still, open for reading. Where there is no perl that we know
    to ask, these become what they cover, and nothing else is laid out.
    """
    perl = read(PERL, 20)
    calls = _CALLS.get(perl[18:20]) if perl.startswith(_ELF64) else None
    os.makedirs(FOLDER, 0o755, exist_ok=True)
    texts = {path: read(path) for path in IN_PATH if calls}
    texts |= {path: content(originals[path.decode()]) for path in BY_PATH}
    for path, text in texts.items():
        first = _FIRST.match(text)
        if calls and first:
            _lay(path, text, first, shims, calls)
        elif path in BY_PATH and text:
            put(shims + path[path.rindex(b"/") :], text, 0o755)


def _lay(
    path: bytes, text: bytes, first: re.Match[bytes], shims: bytes, calls: Mapping[str, bytes]
) -> None:
    """Lay out the resident of the program at `path`, whose first line is matched."""
    name = path.rpartition(b"/")[2]
    place, shim, plain = FOLDER + b"/" + name, shims + b"/" + name, path
    if path in BY_PATH:
        plain = place
        put(plain, text, 0o755)
    words = {
        **calls,
        "ORIGINAL": path,
        "PLACE": place,
        "PLAIN": plain,
        "LATER": _LATER.get(name, b""),
        "WARNING": b"1" if first[1] else b"0",
    }
    put(place + b".text", _filled(_BEFORE, words) + text[first.end() :])
    put(place + b".server", _filled(_SERVER, words))
    put(shim, _filled(_SHIM, words), 0o755)


def _filled(program: bytes, words: Mapping[str, bytes]) -> bytes:
    for name, word in words.items():
        program = program.replace(b"@%b@" % name.encode(), word)
    return program
