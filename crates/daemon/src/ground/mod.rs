//! The ground: what one daemon owns on its host, so that several daemons share a host without touching each other's things.
//!
//! A ground has a random id for as long as its state directory exists. Its names come from two slots. A slot is a small
//! number that the ground claims where its names could clash: the *network slot* in its network namespace, by making
//! that slot's bridge, and the *uid slot* on its host, by locking a file below `/run/banger-ground`. Slot 0 has the
//! plain names. The two may differ.

mod choice;
mod claims;
mod directory;
mod error;
mod id;
mod mark;
mod neighbours;
mod range;
mod record;
mod slot;
mod state;

pub use self::choice::Choice;
pub use self::claims::{Claimant, Claimed, Claims, Recorded};
pub use self::directory::DirectoryError;
pub(crate) use self::directory::lock_directory;
#[cfg(test)]
pub(crate) use self::directory::private_directory;
pub use self::error::ClaimError;
pub use self::id::GroundId;
pub use self::mark::Mark;
pub use self::neighbours::{Neighbour, has_others, lives, neighbours, next, own};
pub use self::range::{IDS, Uids};
pub use self::record::Claim;
pub use self::slot::{SLOTS, Slot};
pub use self::state::{Identity, Moved, StateDir};
