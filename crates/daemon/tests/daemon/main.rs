//! The daemon on the fake VMM, as a library and as a program.

mod arguments;
mod bounds;
mod comeback;
mod events;
mod faults;
mod guests;
mod image_build;
mod missing;
mod refusals;
mod support;
