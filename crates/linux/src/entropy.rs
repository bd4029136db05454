//! Randomness given to the kernel.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// The most that is given at once, in bytes.
pub const MAX: usize = 512;

/// `_IOW('R', 0x03, int[2])`, from `linux/random.h`.
const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;

/// `struct rand_pool_info` (random(4)) with its flexible array at a fixed size.
#[repr(C)]
struct Pool {
    entropy_count: libc::c_int,
    buf_size: libc::c_int,
    buf: [u8; MAX],
}

/// Stirs `bytes` into the kernel's pool and credits them as fully random, so that a guest's `getrandom` need not wait.
///
/// # Errors
/// Where the caller is not privileged, or more than [`MAX`] bytes are given.
pub fn credit(bytes: &[u8]) -> io::Result<()> {
    let mut pool = Pool { entropy_count: 0, buf_size: 0, buf: [0; MAX] };
    pool.buf.get_mut(..bytes.len()).ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(bytes);
    pool.buf_size = libc::c_int::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    pool.entropy_count = pool.buf_size * 8;
    let device = File::options().write(true).open("/dev/random")?;
    // SAFETY: the argument points to a live `rand_pool_info` whose `buf_size` is within its array; the kernel only reads it.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), RNDADDENTROPY, &raw const pool) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_refused_before_the_kernel_sees_it() {
        assert_eq!(credit(&[0; MAX + 1]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
