//! What QEMU says on its monitor, which a hostile guest may have taken over: every errand ends, with a value or an error.

#![no_main]

use std::cell::RefCell;
use std::io::Write;
use std::net::Shutdown;

use bangerd::vmm::qemu::qmp::{Qmp, QmpError};
use libfuzzer_sys::fuzz_target;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

thread_local! {
    static RUNTIME: RefCell<Runtime> =
        RefCell::new(tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime"));
}

fuzz_target!(|input: (u8, &[u8])| {
    let (errand, said) = input;
    // What fits into the socket's buffer, so that nobody has to write while the other reads.
    if said.len() <= 64 * 1024 {
        RUNTIME.with_borrow(|runtime| drop(runtime.block_on(talk(errand, said))));
    }
});

async fn talk(errand: u8, said: &[u8]) -> Result<(), QmpError> {
    let (near, mut far) = std::os::unix::net::UnixStream::pair()?;
    near.set_nonblocking(true)?;
    far.write_all(said)?;
    far.shutdown(Shutdown::Write)?;
    let mut qmp = Qmp::greet(UnixStream::from_std(near)?, 0).await?;
    match errand % 6 {
        0 => drop(qmp.running().await?),
        1 => drop(qmp.chardevs().await?),
        2 => drop(qmp.chardev_is_open("channel").await?),
        3 => qmp.device_del("port").await?,
        4 => drop(qmp.event().await?),
        _ => qmp.chardev_close("channel").await?,
    }
    Ok(())
}
