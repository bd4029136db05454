//! A machine as QEMU's arguments. Pure: numbers of descriptors in, words out.
//!
//! What is chosen here, and why (boot times: a 2-core host without KVM, a distribution's kernel to a first program's first byte):
//!
//! - `microvm` with ACPI, because distributions' kernels find virtio-mmio devices by ACPI and not on their command line.
//! - `pic=off`. With the old interrupt controller there, a kernel entered by PVH (which does not expect one) dies of its
//!   first tick, taken for a division by zero, in two boots of three.
//! - `pit=off`, and under emulation the frequency of the time stamp counter on the kernel's command line: else the kernel
//!   measures it against the timer chip, which fails on a busy host, and then it hangs for ever (2 boots in 30).
//! - `rtc=on`: without that clock the kernel's two attempts to read it cost 2 s. `isa-serial=on`: see `console.rs`.
//! - Under emulation no `erms` and `fsrm`, by which processors say that `rep movsb` is their fastest way to copy. To QEMU it
//!   is the slowest, a byte at a time; without them guests take `rep movsq`, and their every copy is several times as quick.
//! - Two monitors, because each serves one client: one for errands, one that is only listened to (`events.rs`).
//! - Disks: QEMU's page-cache writes (`cache.direct=off`) with flushes honoured (`cache.no-flush=off`): a guest's fsync
//!   reaches the host's disk, and clones share what the host has read of their image. `aio=threads` works on every file
//!   system and kernel; `native` needs direct access, `io_uring` a kernel that allows it.
//! - The sandbox denies what QEMU never needs here: it opens nothing by name but the kernel, the initramfs and `/dev/kvm`.

use std::ffi::OsString;
use std::os::fd::RawFd;

use banger_protocol::boot::PORT;

use crate::vmm::Machine;

/// The ids by which QMP commands name what the arguments made.
pub mod id {
    /// The bus that the agent's port is on.
    pub const SERIAL_BUS: &str = "serial.0";
    /// The agent's port.
    pub const PORT: &str = "port";
    /// The port's connection to the daemon, the first one; [`super::Renewal`] names the later ones.
    pub const CHANNEL: &str = "channel";

    /// The disk at this place among the machine's.
    pub fn disk(place: usize) -> String {
        format!("disk{place}")
    }
}

/// How many ports the bus has room for. The first is kept for a console that there is not.
const MAX_PORTS: u64 = 8;

/// The how manyth channel of a VM, from 0.
///
/// Every renewal has a port of another number. The queues that host and guest share belong to a port's number, and the
/// guest learns only later that a port is gone and another there: with the same number, a hello for the new port is now and
/// then put into the buffers of the old one and thrown away with them, and what the guest still had to say on the old port
/// comes out of the new one (both seen, in one of two hundred renewals). A number comes back after seven renewals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Renewal(pub u64);

impl Renewal {
    /// The one whose connection has this name.
    pub fn of_channel(name: &str) -> Option<Renewal> {
        match name.strip_prefix(id::CHANNEL)? {
            "" => Some(Renewal(0)),
            number => number.parse().ok().map(Renewal),
        }
    }

    /// The name of its connection.
    pub fn channel(self) -> String {
        match self.0 {
            0 => id::CHANNEL.to_owned(),
            number => format!("{}{number}", id::CHANNEL),
        }
    }

    /// The number of its port.
    pub fn port_number(self) -> u64 {
        1 + self.0 % (MAX_PORTS - 1)
    }
}

/// The descriptors that QEMU inherits, as numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptors {
    /// The kernel, readable.
    pub kernel: RawFd,
    /// The initramfs, readable.
    pub initramfs: RawFd,
    /// The machine's disks, in its order, readable and writable.
    pub disks: Vec<RawFd>,
    /// One end of a connected socket pair.
    pub channel: RawFd,
    /// A listening socket.
    pub qmp: RawFd,
    /// A listening socket.
    pub events: RawFd,
    /// A listening socket.
    pub console: RawFd,
    /// The machine's TAP, if it has a card.
    pub tap: Option<RawFd>,
}

/// How the guest's processors run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// By the kernel's KVM.
    Kvm,
    /// By emulation; the guest's time stamp counter runs at this many kHz.
    Emulation {
        /// The host's own frequency: QEMU passes the counter through.
        tsc_khz: u64,
    },
}

/// QEMU's arguments, without its name.
pub fn arguments(machine: &Machine, accelerator: Accelerator, fds: &Descriptors) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    let mut option = |name: &str, value: String| args.extend([name.into(), value.into()]);

    option("-name", format!("guest={},debug-threads=on", machine.id));
    option("-M", "microvm,acpi=on,pic=off,pit=off,rtc=on,isa-serial=on,usb=off,pcie=off".into());
    match accelerator {
        Accelerator::Kvm => {
            option("-accel", "kvm".into());
            option("-cpu", "host".into());
        }
        Accelerator::Emulation { .. } => {
            option("-accel", "tcg,thread=multi,tb-size=256".into());
            option("-cpu", "max,-erms,-fsrm".into());
        }
    }
    option("-smp", machine.cpus.to_string());
    option("-m", format!("{}M", machine.memory_mib));

    option("-kernel", format!("/proc/self/fd/{}", fds.kernel));
    option("-initrd", format!("/proc/self/fd/{}", fds.initramfs));
    option("-append", kernel_command_line(&machine.cmdline, accelerator));

    option("-chardev", format!("socket,id=qmp,fd={},server=on,wait=off", fds.qmp));
    option("-mon", "chardev=qmp,mode=control".into());
    option("-chardev", format!("socket,id=events,fd={},server=on,wait=off", fds.events));
    option("-mon", "chardev=events,mode=control".into());
    option("-chardev", format!("socket,id=console,fd={},server=on,wait=off", fds.console));
    option("-serial", "chardev:console".into());

    for (set, (disk, fd)) in machine.disks.iter().zip(&fds.disks).enumerate() {
        let node = id::disk(set);
        option("-add-fd", format!("fd={fd},set={set}"));
        option(
            "-blockdev",
            format!(
                "driver=file,node-name={node},filename=/dev/fdset/{set},aio=threads,discard=unmap,\
                 cache.direct=off,cache.no-flush=off"
            ),
        );
        option("-device", format!("virtio-blk-device,drive={node},serial={},discard=on", disk.serial));
    }

    let first = Renewal(0);
    option("-chardev", format!("socket,id={},fd={}", first.channel(), fds.channel));
    option("-device", format!("virtio-serial-device,id=serial,max_ports={MAX_PORTS}"));
    option(
        "-device",
        format!(
            "virtserialport,bus={},id={},chardev={},nr={},name={PORT}",
            id::SERIAL_BUS,
            id::PORT,
            first.channel(),
            first.port_number(),
        ),
    );
    if let (Some(card), Some(tap)) = (&machine.card, fds.tap) {
        option("-netdev", format!("tap,id=net,fd={tap}"));
        option("-device", format!("virtio-net-device,netdev=net,mac={}", card.mac));
    }
    option("-device", "virtio-rng-device".into());
    option("-device", "virtio-balloon-device,free-page-reporting=on,deflate-on-oom=on".into());

    option("-display", "none".into());
    option("-nic", "none".into());
    option("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".into());
    args.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(Into::into));
    args
}

/// The id of the machine that a QEMU with this command line runs: the name that [`arguments`] gave it.
pub fn machine_of(command: &[Vec<u8>]) -> Option<String> {
    let at = command.iter().position(|word| word == b"-name")?;
    let name = std::str::from_utf8(command.get(at + 1)?).ok()?;
    let id = name.strip_prefix("guest=")?.split(',').next()?;
    (!id.is_empty()).then(|| id.to_owned())
}

/// Ticks per second of Debian's kernels (`CONFIG_HZ`). With another's the kernel's shortest delays are longer or shorter
/// than asked for, which no device of this machine minds.
const HZ: u64 = 250;

/// What this machine asks of the kernel stands in front: what follows a `--` in `cmdline` belongs to init.
fn kernel_command_line(cmdline: &str, accelerator: Accelerator) -> String {
    match accelerator {
        Accelerator::Kvm => cmdline.to_owned(),
        // Emulated processors have one counter, that of the host; the kernel would doubt it and count in jiffies. `lpj`
        // spares each further processor a calibration of its own: 0.3 of 1.9 s with two.
        Accelerator::Emulation { tsc_khz } => {
            let loops = tsc_khz * 1000 / HZ;
            format!("tsc=reliable tsc_early_khz={tsc_khz} lpj={loops} no_timer_check {cmdline}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm::Disk;

    fn lines(accelerator: Accelerator) -> String {
        let disk = |name: &str| Disk { path: format!("/never/seen/{name}").into(), serial: name.to_owned() };
        let machine = Machine {
            id: "3x4mp13".into(),
            runtime_dir: "/never/seen/runtime".into(),
            kernel: "/never/seen/vmlinux".into(),
            initramfs: "/never/seen/initramfs".into(),
            cmdline: "quiet console=ttyS0".into(),
            disks: vec![disk("root"), disk("work")],
            card: None,
            cpus: 2,
            memory_mib: 1024,
            uid: 100_000,
            console_log: "/never/seen/console.log".into(),
            kvm: accelerator == Accelerator::Kvm,
        };
        let fds = Descriptors {
            kernel: 10,
            initramfs: 11,
            disks: vec![12, 13],
            channel: 14,
            qmp: 15,
            events: 17,
            console: 16,
            tap: None,
        };
        let args = arguments(&machine, accelerator, &fds);
        let words = args.iter().map(|word| word.to_str().unwrap());
        words.map(|word| if word.starts_with('-') { format!("\n{word}") } else { format!(" {word}") }).collect()
    }

    #[test]
    fn a_machine_under_emulation() {
        assert_eq!(
            lines(Accelerator::Emulation { tsc_khz: 2_596_118 }).trim_start(),
            include_str!("args.snapshot").trim_end()
        );
    }

    #[test]
    fn kvm_changes_the_processor_and_leaves_the_kernel_its_own_clock() {
        let (emulated, kvm) = (lines(Accelerator::Emulation { tsc_khz: 2_596_118 }), lines(Accelerator::Kvm));
        let changed: Vec<_> = emulated.lines().zip(kvm.lines()).filter(|(one, two)| one != two).collect();
        assert_eq!(
            changed,
            [
                ("-accel tcg,thread=multi,tb-size=256", "-accel kvm"),
                ("-cpu max,-erms,-fsrm", "-cpu host"),
                (
                    "-append tsc=reliable tsc_early_khz=2596118 lpj=10384472 no_timer_check quiet console=ttyS0",
                    "-append quiet console=ttyS0"
                ),
            ]
        );
    }

    #[test]
    fn a_machine_is_known_by_its_own_arguments_and_by_no_others() {
        let of = |words: &[&str]| machine_of(&words.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>());
        let line = lines(Accelerator::Kvm);
        let words: Vec<&str> = ["qemu"].into_iter().chain(line.split_whitespace()).collect();
        assert_eq!(of(&words).as_deref(), Some("3x4mp13"));
        assert_eq!(of(&["qemu", "-name", "guest=3x4mp13"]).as_deref(), Some("3x4mp13"));
        for others in [&["sleep", "60"][..], &["qemu", "-name"], &["qemu", "-name", "guest=,x"], &["qemu", "guest=3x"]]
        {
            assert_eq!(of(others), None, "{others:?}");
        }
    }

    #[test]
    fn no_path_of_the_host_is_named() {
        assert!(!lines(Accelerator::Kvm).contains("/never/seen"));
    }

    #[test]
    fn a_renewal_is_known_by_its_channels_name_and_has_another_port_than_its_neighbours() {
        for number in 0..100 {
            let (renewal, next) = (Renewal(number), Renewal(number + 1));
            assert_eq!(Renewal::of_channel(&renewal.channel()), Some(renewal));
            assert!(renewal.port_number() != next.port_number());
            assert!((1..MAX_PORTS).contains(&renewal.port_number()));
        }
        for other in ["qmp", "console", "channelx", "channel-1"] {
            assert_eq!(Renewal::of_channel(other), None);
        }
    }
}
