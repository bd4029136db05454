//! The agent on a host, for the fake VMM.
