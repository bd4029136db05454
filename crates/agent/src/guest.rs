//! What the calls know of the guest that they run in.

use std::path::PathBuf;

use crate::users::User;

/// The guest.
#[derive(Debug)]
pub struct Guest {
    /// The protocol that this agent speaks.
    pub protocol: u32,
    /// The kernel's boot id.
    pub boot_id: String,
    /// What plays the guest, if this is none.
    pub kind: Kind,
}

/// A guest, or what stands in for one.
#[derive(Debug)]
pub enum Kind {
    /// A real one.
    Real {
        /// Whether its image has an init.
        has_init: bool,
    },
    /// A directory of a host plays the guest's `/root`.
    Fake {
        /// The directory.
        home: PathBuf,
    },
}

impl Guest {
    /// The guest that this process runs in.
    pub fn real(protocol: u32, has_init: bool) -> Guest {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Guest { protocol, boot_id: boot_id.trim().to_owned(), kind: Kind::Real { has_init } }
    }

    /// Where a user's commands run unless they say otherwise, and their `HOME`.
    pub fn home(&self, user: &User) -> PathBuf {
        match &self.kind {
            Kind::Fake { home } if user.uid == rustix::process::getuid().as_raw() => home.clone(),
            Kind::Fake { .. } | Kind::Real { .. } => user.home.clone(),
        }
    }
}
