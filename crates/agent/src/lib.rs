//! The guest's side of banger: first the machine's first process, then the helper that serves the daemon's calls.
//!
//! [`boot`] brings the machine up and becomes its init, or, forked, the agent. [`serve`] finds the daemon's sessions and
//! hands each stream to [`call`]. [`fake`] serves the same calls on a host, for the fake VMM.

pub mod boot;
pub mod fake;
pub mod serve;

mod call;
mod changes;
mod clock;
mod connection;
mod console;
mod detached;
mod dial;
mod exec;
mod facts;
mod files;
mod guest;
mod init;
mod levels;
mod load;
mod ports;
mod power;
mod stream;
mod users;
