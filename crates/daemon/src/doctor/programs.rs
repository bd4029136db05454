//! The programs that banger starts.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use banger_api::daemon::Finding;

use super::{fail, pass, warn};
use crate::net::network::NetworkError;
use crate::vmm::VmmError;
use crate::vmm::qemu::{OLDEST, Version};

/// Whether there is a QEMU that is new enough.
pub(super) fn qemu(path: &Path, version: Result<Version, VmmError>) -> Finding {
    const CHECK: &str = "qemu";
    match version {
        Ok(version) => pass(CHECK, format!("{} is version {version}", path.display())),
        Err(error) => fail(
            CHECK,
            error.to_string(),
            format!("install version {OLDEST} or newer: apt-get install qemu-system-x86"),
        ),
    }
}

/// Whether images can be built.
pub(super) fn mmdebstrap(path: &Path) -> Finding {
    program("mmdebstrap", path, "images cannot be built", "mmdebstrap")
}

/// Whether file systems can be made.
pub(super) fn mke2fs(path: &Path) -> Finding {
    program("mke2fs", path, "neither images nor empty work disks can be made", "e2fsprogs")
}

/// Whether what was left out of a file system can be put in.
pub(super) fn debugfs(path: &Path) -> Finding {
    program("debugfs", path, "images cannot be built", "e2fsprogs")
}

/// Whether builds can be shut in.
pub(super) fn unshare(path: &Path) -> Finding {
    program("unshare", path, "images cannot be built", "util-linux")
}

/// Whether VMs can have a network: nft is there, takes their rules, and lists all that there are.
pub(super) fn nft(path: &Path, tried: Result<(), NetworkError>) -> Finding {
    const CHECK: &str = "nft";
    let Err(error) = tried else { return pass(CHECK, format!("{} takes the rules of VMs' network", path.display())) };
    let found = format!("VMs can have no network: {}", crate::api::error::chain(&error));
    warn(CHECK, found, error.help().unwrap_or("see the daemon's log"))
}

/// Whether the files of a checkout can be listed.
pub(super) fn git(path: &Path) -> Finding {
    program("git", path, "`banger run DIR` cannot tell which files of a checkout to take along", "git")
}

fn program(check: &str, path: &Path, without: &str, package: &str) -> Finding {
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => {
            pass(check, path.display().to_string())
        }
        Ok(_) => warn(check, format!("{} cannot be executed: {without}", path.display()), install(package)),
        Err(error) => warn(check, format!("{}: {error}: {without}", path.display()), install(package)),
    }
}

fn install(package: &str) -> String {
    format!("apt-get install {package}")
}

/// Whether the agent is there, and runs in a guest that has no libraries yet.
pub(super) fn agent(path: &Path) -> Finding {
    const CHECK: &str = "agent";
    let fix = "install banger anew, or name the agent with `bangerd --agent`";
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(64 * 1024).read_to_end(&mut bytes));
    if let Err(error) = read {
        return fail(CHECK, format!("{}: {error}", path.display()), fix);
    }
    match needs_interpreter(&bytes) {
        Some(false) => pass(CHECK, path.display().to_string()),
        Some(true) => {
            fail(CHECK, format!("{} is not static: it cannot run in a guest's initramfs", path.display()), fix)
        }
        None => fail(CHECK, format!("{} is no program for x86-64", path.display()), fix),
    }
}

/// Whether an ELF file for x86-64 wants a dynamic linker (`PT_INTERP`); `None` for every other file.
fn needs_interpreter(bytes: &[u8]) -> Option<bool> {
    const X86_64: u64 = 62;
    const INTERPRETER: u64 = 3;
    let number = |at: usize, width: usize| -> Option<u64> {
        let mut number = [0; 8];
        number[..width].copy_from_slice(bytes.get(at..at.checked_add(width)?)?);
        Some(u64::from_le_bytes(number))
    };
    if !bytes.starts_with(b"\x7fELF\x02\x01") || number(18, 2)? != X86_64 {
        return None;
    }
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for entry in 0..count {
        let at = usize::try_from(table.checked_add(entry * size)?).ok()?;
        if number(at, 4)? == INTERPRETER {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::nft::NftError;
    use banger_api::daemon::Verdict;

    #[test]
    fn a_missing_or_old_qemu_fails() {
        let path = Path::new("/usr/bin/qemu");
        assert_eq!(qemu(path, Ok(Version { major: 10, minor: 0 })).verdict, Verdict::Pass);
        let unfit = VmmError::Unfit { program: "/usr/bin/qemu".into(), problem: "it is version 6.2".into() };
        let found = qemu(path, Err(unfit));
        assert_eq!(found.verdict, Verdict::Fail);
        assert_eq!(found.found, "/usr/bin/qemu cannot be used: it is version 6.2");
        assert!(found.fix.unwrap().contains("7.2 or newer"));
    }

    #[test]
    fn an_nft_that_is_missing_or_refuses_is_a_warning() {
        let path = Path::new("/usr/sbin/nft");
        assert_eq!(nft(path, Ok(())).verdict, Verdict::Pass);
        let found = nft(path, Err(NftError::Missing.into()));
        assert_eq!((found.verdict, found.fix.as_deref()), (Verdict::Warn, Some("install it: apt install nftables")));
        for (said, help) in [("syntax error", "0.9.8"), ("Operation not permitted", "as root")] {
            let found = nft(path, Err(NftError::Refused { said: said.to_owned() }.into()));
            assert!(found.found.contains(said) && found.fix.unwrap().contains(help));
        }
    }

    #[test]
    fn a_missing_tool_is_a_warning_with_its_package() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tool");
        let missing = [
            (mmdebstrap(&path), "mmdebstrap"),
            (mke2fs(&path), "e2fsprogs"),
            (debugfs(&path), "e2fsprogs"),
            (unshare(&path), "util-linux"),
            (git(&path), "git"),
        ];
        for (found, package) in missing {
            assert_eq!(found.verdict, Verdict::Warn);
            assert!(found.fix.unwrap().ends_with(package));
        }
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(git(&path).found.contains("cannot be executed"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(git(&path).verdict, Verdict::Pass);
    }

    #[test]
    fn an_agent_that_is_missing_or_dynamic_or_no_program_fails() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent");
        let found = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            agent(&path)
        };
        assert_eq!(agent(&dir.path().join("none")).verdict, Verdict::Fail);
        assert!(found(b"#!/bin/sh\n").found.ends_with("is no program for x86-64"));
        let elf = |kind: u32| {
            let mut elf = vec![0; 64 + 56];
            elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
            elf[18] = 62;
            (elf[32], elf[54], elf[56]) = (64, 56, 1);
            elf[64..68].copy_from_slice(&kind.to_le_bytes());
            elf
        };
        assert_eq!(found(&elf(1)).verdict, Verdict::Pass);
        assert!(found(&elf(3)).found.ends_with("cannot run in a guest's initramfs"));
        assert_eq!(found(&elf(1)[..70]).verdict, Verdict::Pass);
        assert_eq!(found(&elf(1)[..66]).verdict, Verdict::Fail);
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert_eq!(needs_interpreter(&own[..64 * 1024]), Some(true), "tests are linked dynamically");
    }
}
