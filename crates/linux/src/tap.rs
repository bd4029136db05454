//! TAP devices (Documentation/networking/tuntap.rst in the kernel's sources): links whose other end is a descriptor.
//!
//! They carry a virtio header with each packet (`IFF_VNET_HDR`), have one queue, and whoever opens one says exactly that, as
//! the kernel refuses another kind of opener. A device goes with its descriptor unless it is told to stay.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// The longest name of a link, in bytes.
pub const LONGEST_NAME: usize = libc::IFNAMSIZ - 1;

/// Where they are made.
const CONTROL: &str = "/dev/net/tun";

/// `IFF_TAP`, `IFF_NO_PI` and `IFF_VNET_HDR`, as they stand in the sixteen bits of a request.
const KIND: u16 = 0x0002 | 0x1000 | 0x4000;

/// `IFF_TUN_EXCL`.
const NEW: u16 = 0x8000;

/// `IFF_PERSIST`.
const STAYS: u16 = 0x0800;

/// Makes a device that goes with its descriptor, which is its only one.
///
/// # Errors
/// Those of open(2) and ioctl(2): `EBUSY` where a link of that name exists, `EPERM` without `CAP_NET_ADMIN`.
pub fn make(name: &str) -> io::Result<OwnedFd> {
    attach(name, KIND | NEW)
}

/// Has a device stay when its descriptor is closed, until it is removed.
///
/// # Errors
/// Those of ioctl(2).
pub fn keep(tap: &OwnedFd) -> io::Result<()> {
    control(tap, libc::TUNSETPERSIST, 1)
}

/// Opens a device that exists. Nobody else can have it open.
///
/// # Errors
/// Those of open(2) and ioctl(2): `EBUSY` where somebody has it open, `EINVAL` where it is of another kind;
/// [`io::ErrorKind::NotFound`] where there is none of that name.
pub fn open(name: &str) -> io::Result<OwnedFd> {
    let tap = attach(name, KIND)?;
    let mut request = Request::new(name, 0)?;
    // SAFETY: the kernel writes a `struct ifreq`, which the buffer is as large as, and which outlives the call.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNGETIFF, request.0.as_mut_ptr()) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    // Where there was none one has been made just now, which does not stay: it goes with this descriptor.
    if request.flags() & STAYS == 0 { Err(io::ErrorKind::NotFound.into()) } else { Ok(tap) }
}

/// A `struct ifreq`: the name, and flags in a union that is larger than they are.
struct Request([u8; size_of::<libc::ifreq>()]);

impl Request {
    fn new(name: &str, flags: u16) -> io::Result<Request> {
        if name.is_empty() || name.len() > LONGEST_NAME || name.contains(['%', '/', '\0']) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut request = [0; size_of::<libc::ifreq>()];
        request[..name.len()].copy_from_slice(name.as_bytes());
        request[libc::IFNAMSIZ..libc::IFNAMSIZ + 2].copy_from_slice(&flags.to_ne_bytes());
        Ok(Request(request))
    }

    fn flags(&self) -> u16 {
        u16::from_ne_bytes([self.0[libc::IFNAMSIZ], self.0[libc::IFNAMSIZ + 1]])
    }
}

fn attach(name: &str, flags: u16) -> io::Result<OwnedFd> {
    let mut request = Request::new(name, flags)?;
    let tap = OpenOptions::new().read(true).write(true).open(CONTROL)?;
    // SAFETY: the kernel reads and writes a `struct ifreq`, which the buffer is as large as, and which outlives the call.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, request.0.as_mut_ptr()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(tap.into()) }
}

/// Calls ioctl(2) with a number.
fn control(tap: &OwnedFd, request: libc::c_ulong, argument: libc::c_ulong) -> io::Result<()> {
    // SAFETY: these requests take their argument as a number and touch no memory of the caller's.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), request, argument) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
