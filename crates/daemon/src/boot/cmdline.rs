//! The kernel's command line, but for what a VMM's driver adds for its own machine. Pure.

/// Words for every guest, each with its reason.
const WORDS: [&str; 7] = [
    // Each line that the kernel prints to a serial console costs a trap per character.
    "quiet",
    "loglevel=3",
    // A guest that panics ends its VMM at once (QEMU runs with `-no-reboot`): the daemon sees that instead of a hang.
    "panic=-1",
    // One tenant per guest: what the kernel would protect it from is itself. Costs emulation most, as it emulates that too.
    "mitigations=off",
    // The processor's random numbers count, so that nothing waits for entropy at boot.
    "random.trust_cpu=on",
    // The crypto code tests each of its algorithms when it is loaded: 0.25 of 1.7 s in emulation.
    "cryptomgr.notests",
    // Mounting, loading modules and making cgroups each wait for all processors to pass through a quiet state, some 20 ms a
    // time where a busy host lets them run late: 2 of 12 s until systemd is up, under a load of seven.
    "rcupdate.rcu_expedited=1",
];

/// The command line of a guest; `console` is what the VMM's driver says of its console.
pub fn cmdline(console: &str) -> String {
    let mut line = WORDS.join(" ");
    line.push(' ');
    line.push_str(console);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_takes_it_and_ends_with_the_console() {
        let line = cmdline("console=ttyS0");
        assert!(line.ends_with(" console=ttyS0"));
        // COMMAND_LINE_SIZE of x86, with room for what a driver adds.
        assert!(line.len() < 1024);
    }
}
