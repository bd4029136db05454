//! The kernel's command line. Pure. What each word is worth was measured in emulation, to the end of a first process that
//! does nothing: in processor time, as the median of six, on two cores.

/// Words for every guest, each with its reason.
const WORDS: [&str; 9] = [
    // Each line that the kernel prints costs a trap per character.
    "quiet",
    "loglevel=3",
    // A guest that panics ends its VMM at once (QEMU runs with `-no-reboot`): the daemon sees that instead of a hang.
    "panic=-1",
    // The host's clock is steady. The watchdog that compares it with others finds it unstable where a virtual processor had
    // to wait, and falls back to a clock that costs an exit per reading.
    "tsc=reliable",
    // A virtual timer works; the test waits for ten ticks of it.
    "no_timer_check",
    // One tenant per guest: what the kernel would protect it from is itself. Costs emulation most, as it emulates them too.
    "mitigations=off",
    // The processor's random numbers count, so that nothing waits for entropy at boot.
    "random.trust_cpu=on",
    // The crypto code tests each of its algorithms when it is loaded: 0.25 of 1.7 s.
    "cryptomgr.notests",
    // Mounting, loading modules and making cgroups each wait for all processors to pass through a quiet state, some 20 ms a
    // time where a busy host lets them run late: 2 of 12 s until systemd is up, under a load of seven.
    "rcupdate.rcu_expedited=1",
];

/// Ticks per second of Debian's kernels (`CONFIG_HZ`). With another's the kernel's shortest delays are longer than needed.
const HZ: u64 = 250;

/// The command line of a guest, with its console if it has one (`ttyS0`, `hvc0`), and with the frequency of the processor's
/// time-stamp counter in kHz where the guest is *emulated* (`banger_linux::tsc`; KVM's guests are told by KVM).
///
/// An emulated guest measures the counter against a timer that is late whenever the host is busy. Mostly it then finds no
/// frequency at all and never starts: 31 of 48 boots under a load of seven, none when told.
pub fn cmdline(console: Option<&str>, emulated_tsc_khz: Option<u32>) -> String {
    let mut line = WORDS.join(" ");
    if let Some(khz) = emulated_tsc_khz {
        // The second spares each further processor a calibration of its own: 0.3 of 1.9 s with two.
        line.push_str(&format!(" tsc_early_khz={khz} lpj={}", u64::from(khz) * 1000 / HZ));
    }
    if let Some(console) = console {
        line.push_str(&format!(" console={console}"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_is_named_only_where_there_is_one() {
        assert!(!cmdline(None, None).contains("console"));
        assert!(cmdline(Some("hvc0"), None).ends_with(" console=hvc0"));
    }

    #[test]
    fn an_emulated_guest_is_told_its_clock() {
        let line = cmdline(None, Some(2_596_122));
        assert!(line.ends_with(" tsc_early_khz=2596122 lpj=10384488"), "{line}");
        assert!(!cmdline(None, None).contains("tsc_early_khz"));
    }

    #[test]
    fn the_kernel_would_take_it() {
        // COMMAND_LINE_SIZE of x86 is 2048; words are told apart by blanks.
        let line = cmdline(Some("ttyS0"), Some(u32::MAX));
        assert!(line.len() < 2048 && !line.contains("  "));
    }
}
