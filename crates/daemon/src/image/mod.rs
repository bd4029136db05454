//! x
#![allow(missing_docs)]
pub mod apt;
pub mod kernel;
pub mod manifest;
pub mod modules;
