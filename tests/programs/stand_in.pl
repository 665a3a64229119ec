#!/usr/bin/perl
# Stands in for a vendor's server: answers what it was started with, as whom, and whether it may write and read.
# Arguments: those of the service. STAND_IN below is: PORT DATA [SECRET] [MEDIA]
use strict;
use warnings;
use IO::Socket::INET;

my ($port, $data, $secret, $media) = qw(STAND_IN);
sub content { open(my $file, '<', $_[0]) or return "-"; my $line = <$file>; chomp $line if defined $line; return $line // "" }
open(my $out, '>>', "$data/starts") or die "$data: $!";
print $out "started\n";
close $out;
my $server = IO::Socket::INET->new(LocalPort => $port, Listen => 16, ReuseAddr => 1) or die "port $port: $!";
while (my $client = $server->accept) {
    my $request = <$client> // next;
    while (my $line = <$client>) { last if $line =~ /^\r?$/ }
    my $body = join("\n", "user " . getpwuid($<), "args @ARGV",
        "secret " . ($secret ? content($secret) : "-"), "media " . ($media ? content("$media/film") : "-"), "");
    print $client "HTTP/1.0 200 OK\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
    close $client;
}
