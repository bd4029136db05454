//! The driver for `qemu-system-x86_64`.

pub mod args;
pub mod console;
mod driver;
mod events;
mod instance;
mod launch;
pub mod qmp;
mod socket;
mod version;

pub use console::console_argument;
pub use driver::Qemu;
pub use version::{OLDEST, Version};

#[cfg(test)]
mod kernel;
#[cfg(test)]
mod tests;
