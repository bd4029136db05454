//! bangerd, the manager of VMs. Read the modules in this order; a request walks through them the same way.

pub mod arguments;
pub mod config;
pub mod context;
pub mod ground;
pub mod log;
pub mod paths;
pub mod serve;

pub mod api;
pub mod events;
pub mod operation;
pub mod vm;

pub mod boot;
pub mod vmm;

pub mod guest;

pub mod dns;
pub mod net;

pub mod image;
pub mod space;
pub mod storage;
pub mod store;

pub mod doctor;
pub mod verify;
