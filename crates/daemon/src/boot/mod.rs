//! What changes with kernel and agent, at each boot: the kernel's command line and the initramfs.
//!
//! The initramfs is two cpio archives, one behind the other. The *base* holds the agent as `/init` and the modules that the
//! image's kernel needs to see its disks and its channel; it is made once for an image and an agent. The second is made for
//! every boot and holds one file, what the guest is told before it has a channel. `vm/start` calls this, on a thread that
//! may block.

pub mod cmdline;
pub mod cpio;
mod initramfs;

pub use cmdline::cmdline;
pub use initramfs::{BootError, base_initramfs, initramfs, modules};
