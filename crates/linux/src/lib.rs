//! What Linux can do for a manager of virtual machines: processes, files, KVM. It has never heard of a VM of banger's.
//!
//! The only crate with `unsafe`; each block says why it is sound. Programs are started here and nowhere else.

pub mod fd_stream;
pub mod file;
pub mod kvm;
pub mod process;
pub mod tsc;
