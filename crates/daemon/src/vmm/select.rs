//! Which driver, and whether with KVM. `banger-linux` measures, this decides, and says why in words.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use banger_linux::kvm::{self, Probe};
use banger_linux::process::Program;

use super::Vmm;
use super::qemu::Qemu;

/// The device that a VMM opens for itself.
pub const KVM: &str = "/dev/kvm";

/// How VMs run on this host.
pub struct Choice {
    /// The driver.
    pub vmm: Arc<dyn Vmm>,
    /// Whether VMs use the kernel's KVM.
    pub kvm: bool,
    /// Why, in one line.
    pub reason: String,
}

/// Chooses. Takes a few milliseconds where KVM is real or absent, 160 where it is slow, and never more than 2.2 s.
pub fn select() -> Choice {
    // Made first: it measures a clock meanwhile.
    let vmm = Arc::new(Qemu::new(Program::Qemu));
    let access = Access::of(Path::new(KVM));
    let Decision { kvm, reason } = decide(&kvm::probe(), access.as_ref().ok());
    Choice { vmm, kvm, reason }
}

/// Whether VMs use KVM, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether they do.
    pub kvm: bool,
    /// Why, in one line.
    pub reason: String,
}

/// Who may open a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Its mode.
    pub mode: u32,
    /// Its group.
    pub gid: u32,
    /// Whether the VMM will be another user than the daemon.
    pub as_other_user: bool,
}

impl Access {
    /// That of this device.
    ///
    /// # Errors
    /// Those of stat(2).
    pub fn of(device: &Path) -> io::Result<Access> {
        let found = device.metadata()?;
        Ok(Access { mode: found.mode(), gid: found.gid(), as_other_user: rustix::process::geteuid().is_root() })
    }

    /// The group that a VMM needs to open it: none where everybody may, and never that of root, which opens much more.
    pub fn group(self) -> Option<u32> {
        (self.mode & 0o006 != 0o006 && self.mode & 0o060 == 0o060 && self.gid != 0).then_some(self.gid)
    }

    /// Whether a VMM can open it.
    fn suffices(self) -> bool {
        !self.as_other_user || self.mode & 0o006 == 0o006 || self.group().is_some()
    }
}

/// Decides by what the probe found and who may open the device.
pub fn decide(probe: &Probe, access: Option<&Access>) -> Decision {
    let (kvm, reason) = match probe {
        Probe::Real { .. } if access.is_some_and(|access| !access.suffices()) => {
            (false, format!("emulation, because {KVM} opens for root only, and VMs do not run as root"))
        }
        Probe::Real { instructions_per_second } => (
            true,
            format!("KVM, which executes {} million instructions per second", millions(*instructions_per_second)),
        ),
        Probe::Slow { instructions_per_second } => (
            false,
            format!(
                "emulation, because {KVM} is no faster: it executes {} million instructions per second, and a processor \
                 a thousand million",
                millions(*instructions_per_second)
            ),
        ),
        Probe::Absent { why } => (false, format!("emulation, because there is no KVM: {why}")),
        Probe::Denied { why } => (false, format!("emulation, because KVM may not be used: {why}")),
    };
    Decision { kvm, reason }
}

fn millions(instructions: u64) -> String {
    let tenths = instructions / 100_000;
    if tenths < 100 { format!("{}.{}", tenths / 10, tenths % 10) } else { (tenths / 10).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UDEV: Access = Access { mode: 0o020_660, gid: 106, as_other_user: true };

    #[test]
    fn kvm_is_used_where_it_is_real_and_can_be_opened() {
        let real = Probe::Real { instructions_per_second: 3_000_000_000 };
        let decision = decide(&real, Some(&UDEV));
        assert_eq!(
            (decision.kvm, decision.reason.as_str()),
            (true, "KVM, which executes 3000 million instructions per second")
        );
        assert_eq!(UDEV.group(), Some(106));
        let everybodys = Access { mode: 0o020_666, gid: 0, as_other_user: true };
        assert!(decide(&real, Some(&everybodys)).kvm && everybodys.group().is_none());
        assert!(decide(&real, Some(&Access { mode: 0o020_600, as_other_user: false, ..UDEV })).kvm);
        let roots_group = Access { gid: 0, ..UDEV };
        assert!(!decide(&real, Some(&roots_group)).kvm && roots_group.group().is_none());
        let roots_only = decide(&real, Some(&Access { mode: 0o020_600, ..UDEV }));
        assert!(!roots_only.kvm && roots_only.reason.contains("opens for root only"), "{roots_only:?}");
    }

    #[test]
    fn everything_else_is_emulation_with_a_reason() {
        let slow = decide(&Probe::Slow { instructions_per_second: 828_590 }, Some(&UDEV));
        assert!(!slow.kvm && slow.reason.contains("no faster: it executes 0.8 million"), "{slow:?}");
        for probe in [Probe::Absent { why: "the cause".into() }, Probe::Denied { why: "the cause".into() }] {
            let decision = decide(&probe, None);
            assert!(!decision.kvm && decision.reason.ends_with("the cause"), "{decision:?}");
        }
    }
}
