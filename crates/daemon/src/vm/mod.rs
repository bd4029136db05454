//! VMs: from a request to a machine, through its life, to nothing left.
//!
//! One task owns one VM ([`actor`]); everything else sends to its queue and reads what it publishes.

mod actor;
pub mod alive;
pub mod change;
pub mod definition;
pub mod error;
pub mod identity;
pub mod registry;
pub mod request;
pub mod spec;
pub mod state;
pub mod turns;

mod comeback;
mod create;
mod guard;
mod names;
mod notice;
mod paused;
mod publish;
mod recover;
mod redefine;
mod release;
mod remove;
mod start;
mod stop;
mod undo;
mod unwritten;
mod watch;
