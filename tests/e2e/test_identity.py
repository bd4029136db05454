"""What makes a VM its own machine, and what it shares with its image."""

import subprocess

from harness import Case


class Identity(Case):
    own_state = True

    def test_two_vms_are_two_machines(self):
        """Host keys, machine-id, host name and the kernel's randomness differ."""
        asked = {
            "host key": "cat /etc/ssh/ssh_host_*_key.pub | cut -d' ' -f2",
            "machine-id": "cat /etc/machine-id",
            "host name": "hostname; cat /etc/hostname",
            # Before anything of a guest's own could have made a difference: the first command that runs.
            "randomness": "head -c 64 /dev/urandom | od -An -tx1",
        }
        seen = {}
        for name in ("one", "two"):
            seen[name] = {"first randomness": self.place.banger("run", "-q", "--rm", "--", "sh", "-c", asked["randomness"])}
            self.place.banger("create", name)
            seen[name] |= {what: self.place.shell(name, script) for what, script in asked.items()}
        for what in seen["one"]:
            self.assertTrue(seen["one"][what].strip(), what)
            self.assertNotEqual(seen["one"][what], seen["two"][what], what)
        self.assertRegex(seen["one"]["machine-id"], r"^[0-9a-f]{32}$")
        self.assertEqual(seen["one"]["host name"].split(), ["one", "one"])
        # What banger says of the key is what the guest has.
        self.assertIn(self.place.vms()["one"]["host_key"].split()[1], seen["one"]["host key"].split())

    def test_identity_stays_over_stop_and_start(self):
        script = "cat /etc/machine-id /etc/hostname; cat /etc/ssh/ssh_host_*_key.pub | cut -d' ' -f2"
        self.place.banger("create", "same")
        before = self.place.shell("same", script)
        self.place.banger("stop", "same")
        self.place.banger("start", "same")
        self.assertEqual(self.place.shell("same", script), before)

    def test_the_guests_clock_is_the_hosts(self):
        self.place.banger("create", "clock")
        import time

        self.assertLess(abs(float(self.place.shell("clock", "date +%s.%N")) - time.time()), 2)

    def test_a_file_in_the_images_root_home_is_in_every_new_vm(self):
        """And nothing that an earlier VM of the same name wrote."""
        image = self.place.json("image", "ls")[0]
        directory = self.place.state / "images" / image["id"]
        note = self.place.runtime_root / "note"
        note.write_text("from the image\n")
        self.place.stop_daemon()
        # By e2fsprogs' own means: into the work seed, and into the root disk's /root that a mount covers.
        for disk, path in (("work-seed.ext4", "/note"), ("root.ext4", "/root/note")):
            wrote = subprocess.run(["debugfs", "-w", "-R", f"write {note} {path}", directory / disk], capture_output=True, text=True)
            self.assertIn("Allocated inode", wrote.stdout, wrote.stderr)
        self.place.start_daemon()
        for attempt in range(2):
            self.place.banger("create", "heir")
            self.assertEqual(self.place.shell("heir", "cat /root/note"), "from the image")
            self.assertEqual(self.place.shell("heir", "cat /root/mine 2>/dev/null || echo none"), "none", attempt)
            self.place.shell("heir", "echo written >/root/mine; echo written >/etc/mine; sync")
            self.place.banger("rm", "--force", "heir")

    def test_an_image_without_a_work_seed_still_works(self):
        """Images from before work seeds existed: the work disk is filled from the root disk's /root."""
        image = self.place.json("image", "ls")[0]
        seed = self.place.state / "images" / image["id"] / "work-seed.ext4"
        self.place.stop_daemon()
        aside = seed.with_suffix(".aside")
        seed.rename(aside)
        try:
            self.place.start_daemon()
            self.assertFalse(self.place.json("image", "show", image["name"])["work_seed"])
            self.place.banger("create", "seedless")
            self.assertIn(".bashrc", self.place.shell("seedless", "ls -A /root; findmnt -n /root"))
            self.assertIn("/root", self.place.shell("seedless", "findmnt -n /root"))
            self.place.banger("rm", "--force", "seedless")
        finally:
            aside.rename(seed)
