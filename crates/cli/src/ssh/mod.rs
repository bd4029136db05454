//! SSH to VMs: who is meant, by which keys, and how ssh(1) is told to go through the daemon and not through a network.

pub mod blocks;
pub mod config_file;
pub mod keys;
pub mod options;
pub mod reach;
pub mod target;
