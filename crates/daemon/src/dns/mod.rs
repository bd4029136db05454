//! Names: `devbox.vm` is the VM devbox, and so is every name below it.

pub mod answer;
pub mod domain;
pub mod names;
pub mod server;
pub mod upstream;
pub mod wiring;
pub mod zone;
