//! What Linux can do for a manager of virtual machines: processes, files, KVM. It has never heard of a VM of banger's.
//!
//! The only crate with `unsafe`; each block says why it is sound. Programs are started here and nowhere else.

pub mod accept;
pub mod dir_watch;
pub mod edge;
pub mod entropy;
pub mod fd_stream;
pub mod file;
pub mod fork;
pub mod host;
pub mod inherit;
pub mod kvm;
pub mod netlink;
pub mod netns;
pub mod power;
pub mod process;
pub mod session;
pub mod suspend;
pub mod tap;
pub mod terminal;
pub mod tsc;
pub mod uevent;
pub mod usage;
pub mod wall_clock;
