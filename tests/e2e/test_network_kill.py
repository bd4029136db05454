"""The daemon is killed (SIGKILL) at every stage of its network, ten times at each: the next one goes on, and in the end the host is as it
was. With the fake VMM; what real guests see of such kills is tested elsewhere.

A stage is known by what the daemon asks of nft(8), which stands behind a script here, or by what the kernel says of links.
"""

import re
import shutil
import subprocess

from fake import FakeCase
from harness import DEADLINE, Failed

TIMES = 10

# As Docker does; and what is left of it when all of banger's is gone.
DROPS = "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }"

# Kills its parent before or after it does what it is asked for, once, when that is what the file `strike` names.
NFT = """#!/bin/sh
case $* in
*list*) exec {real} "$@" ;;
esac
script=$(cat)
case $script in
"add table"*) stage=tables ;;
"add element"*) stage=admit ;;
"delete element"*) stage=release ;;
*'"insert"'*) stage=foreign ;;
*'"delete"'*) stage=unforeign ;;
*) stage=other ;;
esac
when=
if [ "$(cut -d' ' -f1 {strike} 2>/dev/null)" = $stage ]; then when=$(cut -d' ' -f2 {strike}); rm {strike}; fi
[ "$when" != before ] || {{ kill -9 $PPID; exit 1; }}
echo "$script" | {real} "$@"
code=$?
[ "$when" != after ] || kill -9 $PPID
exit $code
"""


class KillDaemonInNetwork(FakeCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        place = cls.place
        script, real, cls.strike = (place.runtime_root / name for name in ("nft", "nft.real", "strike"))
        script.write_text(NFT.format(real=real, strike=cls.strike))
        script.chmod(0o755)
        # Only once: a child of a killed daemon may still execute it, and then it cannot be written.
        shutil.copy("/usr/sbin/nft", real)
        cls.inside = f"mount --bind {script} /usr/sbin/nft"
        place.net.ask("nft", DROPS)
        place.stop_daemon()
        cls.before = cls.there()
        cls.start_daemon()

    @classmethod
    def start_daemon(cls):
        cls.place.start_daemon(*cls.args, inside=cls.inside)

    @classmethod
    def there(cls):
        """All links and rules. With the last daemon, nothing of banger's is among them."""
        rules = re.sub(r"packets \d+ bytes \d+", "", cls.place.net.ask("nft", "list", "ruleset"))
        return sorted(cls.place.net.links()), rules

    def killed_at(self, what, verb, arm):
        """Kills the daemon ten times in a verb; `arm` sees to it that it dies."""
        words = {"create": ["create", "--net", "nat", "one"], "rm": ["rm", "--force", "one"]}[verb]
        for attempt in range(TIMES):
            try:
                self.kill_once(words, arm)
            except Exception as error:
                error.add_note(f"{what}, attempt {attempt}")
                raise

    def kill_once(self, words, arm):
        if words[0] == "rm":
            self.place.banger("create", "--net", "nat", "one")
        with arm():
            client = self.place.start(*words, text=True)
            if not self.place.daemon.ended(10):
                client.kill()
                raise Failed(f"the daemon lives on: {client.communicate()}")
        self.place.kill_daemon()
        client.communicate(timeout=DEADLINE)
        self.start_daemon()
        self.place.settled()
        self.assertEqual(self.place.oddities(), [])
        # What is asked for once more is done.
        self.place.run("rm", "--force", "one")
        self.place.banger("create", "--net", "isolated", "one")
        self.assertEqual(self.place.oddities(), [])
        self.place.banger("rm", "--force", "one")
        self.assertEqual(self.place.oddities(), [])
        self.place.stop_daemon()
        self.assertEqual(self.there(), self.before)
        self.start_daemon()

    def at_rules(self, stage, verb):
        for when in ("before", "after"):
            self.killed_at(f"{when} {stage}", verb, lambda: Struck(self.strike, f"{stage} {when}"))

    def test_tables_are_made(self):
        self.at_rules("tables", "create")

    def test_a_lease_is_admitted(self):
        self.at_rules("admit", "create")

    def test_a_lease_goes(self):
        self.at_rules("release", "rm")

    def test_others_tables_get_rules(self):
        self.at_rules("foreign", "create")

    def test_others_tables_are_as_they_were(self):
        self.at_rules("unforeign", "rm")

    def test_links_come(self):
        for link in ("banger0", "banger-carrier", "tap-pool-0", "tap-pool-3"):
            self.killed_at(link, "create", lambda: Heard(self.place, "comes", link))

    def test_a_link_goes(self):
        # One more than shall wait is given back.
        self.killed_at("a TAP that goes", "rm", lambda: Heard(self.place, "goes", "tap-pool-"))


class Struck:
    """Has nft's stand-in kill the daemon."""

    def __init__(self, file, stage):
        self.file, self.stage = file, stage

    def __enter__(self):
        self.file.write_text(self.stage)

    def __exit__(self, *_):
        self.file.unlink(missing_ok=True)


class Heard:
    """Kills the daemon when a link comes or goes (rtnetlink(7)). A process of its own waits for it: it is in the daemon's network."""

    def __init__(self, place, event, link):
        self.place, self.words = place, [str(place.daemon.pid), event, link]

    def __enter__(self):
        words = ["python3", "-c", KILL_WHEN_HEARD, *self.words]
        self.popen = self.place.net.start(*words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        if self.popen.stdout.readline() != "\n":
            raise Failed("nobody listens to links")

    def __exit__(self, *_):
        self.popen.kill()
        self.popen.communicate()


KILL_WHEN_HEARD = """
import os, signal, socket, struct, sys
daemon, kind, link = os.pidfd_open(int(sys.argv[1])), {"comes": 16, "goes": 17}[sys.argv[2]], sys.argv[3].encode()
links = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
links.bind((0, 1))
print(flush=True)
while True:
    message = links.recv(65536)
    if struct.unpack_from("=H", message, 4)[0] == kind and link in message:
        signal.pidfd_send_signal(daemon, signal.SIGKILL)
        break
"""
