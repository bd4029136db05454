//! A typed client over the daemon's socket. It knows the API and nothing of terminals.
