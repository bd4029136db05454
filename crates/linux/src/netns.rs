//! Network namespaces (network_namespaces(7)).

use std::io;

use rustix::thread::UnshareFlags;

/// Does something on a thread of its own that has left the host's network for a new one, in which there is a loopback device
/// that is down and nothing else. It goes with the thread, unless something of it is still open.
///
/// # Errors
/// Those of unshare(2): `EPERM` without `CAP_SYS_ADMIN`.
pub fn in_new_network<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        // What a thread says of itself is about the work that its caller does: a panic, a skipped test.
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        let elsewhere = std::thread::Builder::new().name(name).spawn_scoped(scope, || {
            // SAFETY: no descriptor table is unshared, which is all that could surprise other threads.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)? };
            Ok(work())
        })?;
        elsewhere.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_thread_is_named_as_its_caller() {
        match super::in_new_network(|| std::thread::current().name().map(str::to_owned)) {
            Ok(name) => assert_eq!(name.as_deref(), std::thread::current().name()),
            Err(error) => banger_skip::skipped!("no network namespace can be made: {error}"),
        }
    }
}
