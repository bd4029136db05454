//! The program `banger` against a daemon that the tests play.

mod commands;
mod copy;
mod daemon;
mod help;
mod patterns;
mod pull;
mod several;
mod signals;
mod ssh;
mod steering;
mod support;
mod terminal;
