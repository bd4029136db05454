//! Every call of the protocol against the real agent program, as it runs behind the fake VMM.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod commands;
mod detached;
mod dial;
mod files;
mod guest;
mod sessions;
