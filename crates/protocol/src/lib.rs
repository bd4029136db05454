//! What banger's daemon and the agent in a guest say to each other.
//!
//! One connection carries many calls. It begins with a [`hello`], which finds its way past whatever an earlier, broken
//! session left in the pipe; then a [`session`] multiplexes it. Every call is one stream: a [`call::Call`] as its first
//! frame, an [`call::Answer`] as the reply, then the [`frame`]s of that call.
//!
//! The two sides may be of different age: an agent lives on in a guest that a newer daemon adopts. [`VERSION`] counts
//! what changed; [`OLDEST`] is the oldest agent that a daemon still serves.
//!
//! **When changing a message**: only add optional fields with `#[serde(default)]`, or raise [`VERSION`], say below what
//! the new number means, and make the daemon ask [`hello::Welcome::protocol`] before it uses what is new.
//!
//! | version | added |
//! | --- | --- |
//! | 1 | hello, exec, commands, files, levels, power-off |
//! | 2 | [`call::Call::SetClock`] carries fresh random bytes; [`call::Call::Facts`]; the hello tells the time |
//! | 3 | [`call::Exec`] tells the caller's locale and time zone; [`boot::Boot`] names a user; [`call::Call::Get`] takes patterns; [`call::Call::SetName`], [`call::Call::Grow`], [`call::Call::Load`], [`call::Call::Console`] |
//! | 4 | [`call::Call::Dial`], [`call::Call::Ports`]; [`boot::Boot`] has public SSH keys, [`call::Call::Authorize`] changes them |

pub mod boot;
pub mod call;
pub mod frame;
#[cfg(feature = "session")]
mod gathered;
pub mod hello;
pub mod pattern;
#[cfg(feature = "session")]
pub mod session;
pub mod ssh;
pub mod words;

/// The protocol that this build speaks.
pub const VERSION: u32 = 4;

/// The oldest protocol that this build still serves.
pub const OLDEST: u32 = 1;
