"""How guests run: KVM where it is real, else emulation; banger and the kernel must agree."""

from harness import Case


class Accelerator(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.kvm = next(finding for finding in cls.place.json("doctor") if finding["check"] == "kvm")
        cls.place.banger("create", "box")
        cls.vm = cls.place.vms()["box"]

    def test_the_vm_runs_as_the_doctor_said(self):
        """A device that opens and creates VMs, but runs them in software, is worse than emulation, and is not used."""
        self.assertEqual(self.vm["accelerator"], "kvm" if self.kvm["verdict"] == "pass" else "emulation")
        with open(f"/proc/{self.vm['pid']}/cmdline") as words:
            self.assertEqual("kvm" in words.read().split("\0"), self.vm["accelerator"] == "kvm")

    def test_kvm_is_used_for_real(self):
        if self.kvm["verdict"] != "pass":
            self.skipTest(f"no real KVM on this host: {self.kvm['found']}")
        self.assertIn("hypervisor", self.place.shell("box", "grep -m1 ^flags /proc/cpuinfo"))
