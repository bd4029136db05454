//! Which QEMU is there, and whether it is new enough.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use banger_linux::process::{Launch, Leash, Program, Stream};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::Mutex;

use crate::vmm::VmmError;

/// The oldest QEMU that is supported: that of Debian 12. What is used here exists since 6.0 at the latest (`server=on`,
/// `wait=off`; microvm's ACPI since 5.2, the balloon's free page reporting since 5.1), but nothing older is tested.
pub const OLDEST: Version = Version { major: 7, minor: 2 };

/// How long a program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(10);

/// A version of QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second.
    pub minor: u32,
}

impl Version {
    /// Reads `QEMU emulator version 10.0.2 (Debian ...)`.
    pub fn parse(text: &str) -> Option<Version> {
        let number = text.lines().next()?.split_once("version ")?.1;
        let mut parts = number.split(|c: char| !c.is_ascii_digit());
        Some(Version { major: parts.next()?.parse().ok()?, minor: parts.next()?.parse().ok()? })
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The version of one program, asked for once as long as its file stays the same.
#[derive(Debug)]
pub struct Check {
    program: Program,
    known: Mutex<Option<(SystemTime, Version)>>,
}

impl Check {
    /// A check of this program.
    pub fn new(program: Program) -> Check {
        Check { program, known: Mutex::new(None) }
    }

    /// The program's version, if it is supported.
    ///
    /// # Errors
    /// [`VmmError::Unfit`] where it is missing, too old, or no QEMU.
    pub async fn supported(&self) -> Result<Version, VmmError> {
        let modified = tokio::fs::metadata(self.path())
            .await
            .and_then(|metadata| metadata.modified())
            .map_err(|error| self.unfit(error.to_string()))?;
        let mut known = self.known.lock().await;
        let version = match *known {
            Some((when, version)) if when == modified => version,
            _ => self.ask().await?,
        };
        *known = Some((modified, version));
        if version < OLDEST {
            return Err(self.unfit(format!("it is version {version}, and {OLDEST} is the oldest that is supported")));
        }
        Ok(version)
    }

    async fn ask(&self) -> Result<Version, VmmError> {
        let failed =
            |source| VmmError::Io { attempted: format!("ask {} for its version", self.path().display()), source };
        let (theirs, ours) = pipe::pipe().map_err(failed)?;
        let mut launch = Launch::new(self.program.clone(), ["--version"]);
        launch.stdout = Stream::Fd(theirs.into_blocking_fd().map_err(failed)?);
        let leash = Leash::start(launch)?;
        let mut text = Vec::new();
        let said = async {
            ours.take(4096).read_to_end(&mut text).await.map_err(failed)?;
            leash.ended().await.map_err(VmmError::from)
        };
        match tokio::time::timeout(PATIENCE, said).await {
            Ok(Ok(status)) if status.success() => {}
            Ok(Ok(status)) => return Err(self.unfit(format!("it does not say its version ({status})"))),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(self.unfit(format!("it did not say its version in {} s", PATIENCE.as_secs()))),
        }
        let text = String::from_utf8_lossy(&text);
        Version::parse(&text).ok_or_else(|| self.unfit(format!("it says {:?} for its version", text.trim())))
    }

    fn path(&self) -> PathBuf {
        self.program.path().to_owned()
    }

    fn unfit(&self, problem: String) -> VmmError {
        VmmError::Unfit { program: self.path().display().to_string(), problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        let version = |text| Version::parse(text).unwrap();
        assert_eq!(
            version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)\nCopyright"),
            Version { major: 10, minor: 0 }
        );
        assert_eq!(version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg)"), OLDEST);
        assert_eq!(version("QEMU emulator version 9.1rc0"), Version { major: 9, minor: 1 });
        assert!(version("QEMU emulator version 6.2.0") < OLDEST && version("QEMU emulator version 10.0.0") > OLDEST);
        for rubbish in ["", "QEMU", "version ", "version x.y", "version 8", "version 99999999999.1"] {
            assert_eq!(Version::parse(rubbish), None, "{rubbish}");
        }
    }
}
