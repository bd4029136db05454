//! The network that guests are in: one bridge, one subnet, an address for each name, and the rules on who reaches whom.

pub mod addresses;
pub mod bridge;
pub mod forwarding;
pub mod network;
pub mod nft;
pub mod ruleset;
pub mod taps;
