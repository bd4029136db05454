//! What the API's types are on the wire.

mod json;
mod streams;
