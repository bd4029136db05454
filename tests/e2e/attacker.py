"""What root in a guest sends to others on routes of its own making, and who may receive it."""

# Who may reach which target: over the bridge, and through the host. To the host and the world both ways are the same.
VERDICTS = {
    ("a", "b"): (True, False),
    ("a", "apart"): (False, False),
    ("a", "apart2"): (False, False),
    ("a", "host"): (True, True),
    ("a", "host's LAN address"): (False, False),
    ("a", "published port of apart"): (True, True),
    ("a", "published port of b at the LAN address"): (False, False),
    ("a", "world"): (True, True),
    ("apart", "b"): (False, False),
    ("apart", "apart2"): (False, False),
    ("apart", "host"): (False, False),
    ("apart", "host's LAN address"): (False, False),
    ("apart", "published port of b"): (False, False),
    ("apart", "published port of b at the LAN address"): (False, False),
    ("apart", "world"): (False, False),
    ("alone", "b"): (False, False),
    ("alone", "apart"): (False, False),
    ("alone", "host"): (False, False),
    ("alone", "host's LAN address"): (False, False),
    ("alone", "published port of b"): (False, False),
    ("alone", "world"): (False, False),
}

# A hardware address for the link itself: LLDP's. The daemon's own tests cover the others.
LINK_LOCAL = "01:80:c2:00:00:0e"

UDP_PORT = 7777

# In a guest or on the host: prints what arrives at the port, until the end mark arrives.
PERL_RECEIVER = """
$| = 1; my $socket = IO::Socket::INET->new(LocalPort => %d, Proto => "udp") or die $!; print "\\n";
while ($socket->recv(my $text, 99)) { print "$text\\n"; last if $text eq "THE END" }
""" % UDP_PORT


def by_host(addresses, host):
    """A script that makes a guest send to these addresses through the host."""
    return "".join(f"ip route replace {address}/32 via {host} || :\n" for address in addresses if address != host)


def over_bridge(macs):
    """A script that makes it send over the bridge, to the given hardware addresses; also to the host's other addresses."""
    return "".join(
        f"ip route replace {address}/32 dev eth0 || :; ip neighbour replace {address} lladdr {mac} nud permanent dev eth0 || :\n"
        for address, mac in macs.items()
    )


# In a guest: sends a packet to each target that has a port for packets, and prints each target's answer on a connection within some
# seconds. The arguments are the way, the guest's name, and for each target its name, address, connection port and packet port (0: none).
PERL_ATTACK = """
my ($way, $self, @rest) = @ARGV; my (%name, $select); $select = IO::Select->new;
while (my ($target, $address, $tcp, $udp) = splice @rest, 0, 4) {
    if ($udp) {
        my $packets = IO::Socket::INET->new(PeerAddr => $address, PeerPort => $udp, Proto => "udp");
        $packets and $packets->send("$way|$self|$target");
    }
    if ($tcp) {
        my $socket = IO::Socket::INET->new(PeerAddr => $address, PeerPort => $tcp, Proto => "tcp", Blocking => 0) or next;
        $name{$socket} = $target; $select->add($socket);
    }
}
my $end = time + 4;
while ($select->count and time < $end) {
    for my $socket ($select->can_read(1)) {
        if (sysread($socket, my $text, 99)) { print "$name{$socket}|$text\\n" }
        $select->remove($socket);
    }
}
"""


def attack(name, way, targets):
    """The arguments of that script."""
    return [way, name, *(str(word or 0) for target, where in targets.items() for word in (target, *where))]
