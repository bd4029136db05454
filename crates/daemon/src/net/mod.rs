//! The network that guests are in: one bridge, one subnet, an address for each name, and the rules on who reaches whom.

pub mod addresses;
pub mod bridge;
pub mod carrier;
pub mod claim;
mod error;
pub mod foreign;
pub mod forwarding;
mod host;
pub mod listing;
pub mod network;
pub mod nft;
pub mod ruleset;
pub mod switches;
pub mod taps;
mod upkeep;
mod watch;

pub use host::Records;
pub use upkeep::{Unfit, has_legacy_filter};

#[cfg(test)]
mod tests;
