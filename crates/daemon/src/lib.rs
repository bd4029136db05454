//! bangerd, the manager of VMs. Read the modules in this order; a request walks through them the same way.

pub mod config;
pub mod paths;

pub mod api;
pub mod boot;
pub mod doctor;
pub mod guest;
pub mod image;
pub mod operation;
pub mod storage;
pub mod store;
pub mod vm;
pub mod vmm;
