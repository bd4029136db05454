//! Connections to what listens in a guest.

use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

/// A connection that is wanted. The answer is `101` and then frames as [`crate::frame`] lays them out: the daemon sends a
/// message frame first ([`crate::exec::Answer::Done`] or [`crate::exec::Answer::Error`]); then both sides send data frames,
/// each an empty one when nothing follows from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Dial {
    /// A TCP port on the guest's own loopback.
    pub port: NonZeroU16,
}
