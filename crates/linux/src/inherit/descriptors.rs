//! Descriptors that a process got from its starter, or that one of its libraries opened without `O_CLOEXEC`.
//!
//! One system call closes or marks them. Kernels before 5.9 do not have it, kernels before 5.11 cannot mark, and a
//! seccomp filter may refuse it. Then this module lists the open descriptors. A loop up to the limit of descriptors
//! would take seconds if the limit is a billion, and would miss those above a lowered limit.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use rustix::fs::{CWD, Mode, OFlags, RawDir};
use rustix::io::FdFlags;

/// The first descriptor after the standard streams.
const FIRST: u32 = 3;

/// What to do with a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// Close it.
    Close,
    /// Close it when the process executes a program.
    Mark,
}

/// Closes all descriptors but the standard streams and one more. For the very start of a program: all open descriptors
/// came from its starter, and nothing in this process owns them.
///
/// # Errors
/// If the call cannot close them and their list cannot be read.
pub(super) fn close_all_but(keep: Option<RawFd>) -> io::Result<()> {
    let Some(keep) = keep.and_then(|keep| u32::try_from(keep).ok()).filter(|keep| *keep >= FIRST) else {
        return act_on(Act::Close, FIRST, u32::MAX);
    };
    if keep > FIRST {
        act_on(Act::Close, FIRST, keep - 1)?;
    }
    act_on(Act::Close, keep + 1, u32::MAX)
}

/// Marks all descriptors but the standard streams, so that the kernel closes them when the process executes a program.
/// Allocates nothing and takes no lock.
///
/// # Errors
/// If the call cannot mark them and their list cannot be read.
pub(crate) fn mark_all() -> io::Result<()> {
    act_on(Act::Mark, FIRST, u32::MAX)
}

fn act_on(act: Act, first: u32, last: u32) -> io::Result<()> {
    // No error says anything about the descriptors, only that this call is unusable.
    by_call(act, first, last).or_else(|_| by_list(act, first, last))
}

/// With close_range(2).
fn by_call(act: Act, first: u32, last: u32) -> io::Result<()> {
    let flags = match act {
        Act::Close => 0,
        Act::Mark => libc::CLOSE_RANGE_CLOEXEC,
    };
    // SAFETY: takes integers. Marked descriptors stay open; those that are closed have no owner, as `close_all_but` demands.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// With the kernel's list of open descriptors, read into a buffer on the stack.
fn by_list(act: Act, first: u32, last: u32) -> io::Result<()> {
    // The calling thread's own list: a thread can have its own table (CLONE_FILES), as in the tests below.
    let list = rustix::fs::openat(
        CWD,
        c"/proc/thread-self/fd",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut buffer = [MaybeUninit::<u8>::uninit(); 2048];
    // Entries are in numeric order, and the position in the list is a number, so closing shifts nothing.
    let mut entries = RawDir::new(list.as_fd(), &mut buffer);
    while let Some(entry) = entries.next() {
        let name = entry?.file_name().to_str().ok().and_then(|name| name.parse::<RawFd>().ok());
        // `.` and `..` are no numbers.
        let Some(number) = name.filter(|number| *number != list.as_raw_fd()) else { continue };
        if !u32::try_from(number).is_ok_and(|number| (first..=last).contains(&number)) {
            continue;
        }
        match act {
            // SAFETY: nothing in this process owns it, as `close_all_but` demands.
            Act::Close => unsafe {
                rustix::io::close(number);
            },
            Act::Mark => {
                // SAFETY: borrowed for one system call, and it was open a moment ago.
                let fd = unsafe { BorrowedFd::borrow_raw(number) };
                match rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC) {
                    // Another thread may have closed it, if there are any.
                    Ok(()) | Err(rustix::io::Errno::BADF) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::OwnedFd;

    use rustix::thread::UnshareFlags;

    use super::*;

    /// Runs on a thread with its own descriptors.
    fn alone<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // SAFETY: the thread uses no descriptor that was opened elsewhere, and what it does to its own stays with it.
                unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FILES).unwrap() };
                work()
            });
            thread.join().unwrap()
        })
    }

    /// Opens some at the ends and in the middle, without the mark; more than a list in one buffer can hold.
    fn open_many() -> Vec<RawFd> {
        let file = File::open("/dev/null").unwrap();
        let numbers: Vec<RawFd> = (500..700).chain([900, 1000]).collect();
        for &number in &numbers {
            // SAFETY: takes integers; nothing owns what it makes.
            assert_eq!(unsafe { libc::dup2(file.as_raw_fd(), number) }, number);
        }
        numbers
    }

    fn flags(number: RawFd) -> Option<FdFlags> {
        // SAFETY: borrowed to ask whether it is open.
        rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) }).ok()
    }

    fn marks(mark: fn() -> io::Result<()>) {
        alone(|| {
            let numbers = open_many();
            assert!(numbers.iter().all(|number| flags(*number) == Some(FdFlags::empty())));
            mark().unwrap();
            for number in numbers {
                assert_eq!(flags(number), Some(FdFlags::CLOEXEC), "{number}");
            }
            for stream in 0..3 {
                assert!(flags(stream).is_none_or(|flags| flags.is_empty()), "{stream}");
            }
        });
    }

    fn closes(close: fn(u32, u32) -> io::Result<()>) {
        alone(|| {
            let numbers = open_many();
            let kept = 650;
            close(500, kept - 1).unwrap();
            close(kept + 1, u32::MAX).unwrap();
            for number in numbers {
                assert_eq!(flags(number).is_some(), u32::try_from(number) == Ok(kept), "{number}");
            }
        });
    }

    #[test]
    fn descriptors_are_marked_by_one_call() {
        if by_call(Act::Mark, u32::MAX, u32::MAX).is_err() {
            banger_skip::skipped!("this kernel has no close_range(2) that marks");
            return;
        }
        marks(|| by_call(Act::Mark, FIRST, u32::MAX));
    }

    #[test]
    fn descriptors_are_marked_without_that_call() {
        marks(|| by_list(Act::Mark, FIRST, u32::MAX));
    }

    #[test]
    fn descriptors_are_closed_by_one_call() {
        if by_call(Act::Close, u32::MAX, u32::MAX).is_err() {
            banger_skip::skipped!("this kernel has no close_range(2)");
            return;
        }
        closes(|first, last| by_call(Act::Close, first, last));
    }

    #[test]
    fn descriptors_are_closed_without_that_call() {
        closes(|first, last| by_list(Act::Close, first, last));
    }

    #[test]
    fn the_list_itself_is_not_left_open() {
        alone(|| {
            let next = || OwnedFd::from(File::open("/dev/null").unwrap()).as_raw_fd();
            let before = next();
            by_list(Act::Mark, FIRST, u32::MAX).unwrap();
            assert_eq!(next(), before);
        });
    }
}
