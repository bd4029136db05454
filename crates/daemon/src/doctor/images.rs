//! How images are built.

use banger_api::daemon::Finding;

use super::{fail, pass, warn};
use crate::api::error::chain;
use crate::config::Namespace;
use crate::image::Obstacle;

/// What keeps packages' scripts from the host while an image is built.
pub(super) fn containment(wanted: Namespace, attempted: Result<(), Obstacle>) -> Finding {
    const CHECK: &str = "image-build";
    const AS_ROOT: &str = "packages' scripts run as root while an image is built";
    let obstacle = match (wanted, attempted) {
        (Namespace::None, _) => {
            let fix = "set `namespace` below `[image]` in the configuration to \"auto\"";
            return warn(CHECK, format!("{AS_ROOT}, as the configuration wants it"), fix);
        }
        (Namespace::Auto | Namespace::User, Ok(())) => {
            return pass(CHECK, "images are built in a user namespace, which has no rights on this host");
        }
        (Namespace::Auto | Namespace::User, Err(obstacle)) => chain(&obstacle),
    };
    let fix = "raise the sysctl user.max_user_namespaces, use Linux 5.12 or newer, and put BANGER_STATE_DIR on ext4, XFS or btrfs";
    match wanted {
        Namespace::User => fail(
            CHECK,
            format!("images cannot be built: {obstacle}"),
            format!("{fix}; or set `namespace` below `[image]` in the configuration to \"auto\""),
        ),
        Namespace::Auto | Namespace::None => warn(CHECK, format!("{AS_ROOT}: {obstacle}"), fix),
    }
}

#[cfg(test)]
mod tests {
    use banger_api::daemon::Verdict;
    use banger_linux::process::ContainerError;

    use super::*;

    #[test]
    fn builds_as_root_are_a_warning_and_builds_that_cannot_be_a_failure() {
        let obstacle = || {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            Err(Obstacle::Container(ContainerError::Namespace(full)))
        };
        assert_eq!(containment(Namespace::Auto, Ok(())).verdict, Verdict::Pass);
        assert_eq!(containment(Namespace::User, Ok(())).verdict, Verdict::Pass);
        let found = containment(Namespace::Auto, obstacle());
        assert_eq!(found.verdict, Verdict::Warn);
        assert!(found.found.contains("run as root") && found.found.contains("cannot make a user namespace: "));
        assert!(found.fix.unwrap().contains("max_user_namespaces"));
        let found = containment(Namespace::User, obstacle());
        assert!(found.verdict == Verdict::Fail && found.fix.unwrap().contains("\"auto\""));
        let found = containment(Namespace::None, Ok(()));
        assert!(found.verdict == Verdict::Warn && found.found.ends_with("as the configuration wants it"));
    }
}
